import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from core.commands import OurCommand
from core.findings import Severity
from provisioning.verify.verification import verify


class Command(OurCommand):
    help = (
        "Compare everything with everything: rows with each other, and with what each host has. Prints one "
        "finding a line (docs/verify.md says what to do about each) and changes nothing. Ends with status 1 "
        "if there are errors. Example: manage.py verify --strict"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="a list of objects instead of lines")
        parser.add_argument("--strict", action="store_true", help="status 1 for warnings, too")

    def handle(self, *args: Any, strict: bool, **options: Any) -> None:
        findings = verify()
        if options["json"]:
            self.stdout.write(json.dumps([finding.as_json for finding in findings], indent=1))
        else:
            for finding in findings:
                self.stdout.write(str(finding))
        errors = sum(finding.code.severity == Severity.ERROR for finding in findings)
        if errors or (strict and findings):
            raise CommandError(f"{errors} errors, {len(findings) - errors} warnings.")
