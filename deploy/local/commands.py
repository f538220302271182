"""Runs several management commands in one process: loading Django takes longer than running them.

python -m deploy.local.commands '[["migrate", "--no-input"], ["load_catalogue"]]'
"""

import json
import os
import sys

import django
from django.core.management import CommandError, call_command

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpsorg.settings")
    django.setup()
    for words in json.loads(sys.argv[1]):
        try:
            call_command(*words)
        except CommandError as error:
            sys.exit(f"manage.py {' '.join(words)}: {error}")
