#!/usr/bin/env python
"""The operators' entrance.  The actor of all that is done here is the operator who is logged in.

Beside a running ``make run`` it finds that run's settings by itself.
"""

import os
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import Error

from accounts import actors
from core import database
from core.env import load_file


def main() -> None:
    folder = Path(os.environ.get("VPS_VAR") or Path(__file__).parent / "var")
    load_file(folder / "private.env")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpsorg.settings")
    actors.become(actors.operator_actor())
    database.serve_as("command")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"manage.py: {error}")
    except Error as error:
        if not database.is_unavailable(error):
            raise
        sys.exit(f"manage.py: {error}Is the product running (make run), or DATABASE_URL right?")


if __name__ == "__main__":
    main()
