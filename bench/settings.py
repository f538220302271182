"""The product's settings and middleware, for the views written by hand: only the paths differ."""

from vpsorg.settings import *  # noqa: F403

ROOT_URLCONF = "bench.by_hand"
