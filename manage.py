#!/usr/bin/env python
"""The operator's door.  Beside a running ``make run`` it finds that run's settings by itself."""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

from vpsorg.env import load_file

if __name__ == "__main__":
    folder = Path(os.environ.get("VPS_VAR") or Path(__file__).parent / "var")
    load_file(folder / "private.env")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpsorg.settings")
    execute_from_command_line(sys.argv)
