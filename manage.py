#!/usr/bin/env python
"""The operator's door.  Beside a running ``make run`` it finds that run's settings by itself."""

import os
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from vpsorg.env import load_file


def main() -> None:
    folder = Path(os.environ.get("VPS_VAR") or Path(__file__).parent / "var")
    load_file(folder / "private.env")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpsorg.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"manage.py: {error}")
    except OperationalError as error:
        sys.exit(f"manage.py: {error}Is the product running (make run), or DATABASE_URL right?")


if __name__ == "__main__":
    main()
