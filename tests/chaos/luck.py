"""What chance decides in these tests: CHAOS_SEED, which is printed, repeats it; CHAOS_TRIALS has more."""

import os
import random

SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(2**32))
TRIALS = int(os.environ.get("CHAOS_TRIALS") or 50)
