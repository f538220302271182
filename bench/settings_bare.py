"""As ``bench.settings``, and no middleware either: as little as Django can do."""

from bench.settings import *  # noqa: F403

MIDDLEWARE = []
