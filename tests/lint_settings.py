"""The product's settings with the migration linter, for ``make check``."""

from vpsorg.settings import *  # noqa: F403
from vpsorg.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_migration_linter"]
