import json
from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from core.commands import OurCommand
from core.findings import Severity
from inventory.models import Hypervisor
from provisioning.verify.findings import Code
from provisioning.verify.verification import verify


class Command(OurCommand):
    help = (
        "Compare everything with everything: rows with each other, and with what each host has. Prints one "
        "finding a line (docs/verify.md says what to do about each) and changes nothing. Ends with status 1 "
        "if there are errors. Example: manage.py verify --strict"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--host",
            action="append",
            default=[],
            metavar="NAME",
            help="compare the rows with what this host has, and with nothing else; may be repeated",
        )
        parser.add_argument(
            "--code",
            action="append",
            default=[],
            metavar="CODE",
            choices=[code.value for code in Code],
            help="only findings with this code, such as MACHINE_ORPHAN; may be repeated",
        )
        parser.add_argument("--summary", action="store_true", help="how many of each code instead of each")
        parser.add_argument("--json", action="store_true", help="a list of objects instead of lines")
        parser.add_argument("--strict", action="store_true", help="status 1 for warnings, too")

    def handle(self, *args: Any, host: list[str], code: list[str], strict: bool, **options: Any) -> None:
        known = Hypervisor.objects.filter(name__in=host).values_list("name", flat=True)
        if unknown := sorted(set(host) - set(known)):
            raise CommandError(f"There is no hypervisor {', '.join(unknown)}.")
        findings = [finding for finding in verify(host) if not code or finding.code in code]
        facts: list[Any] = [finding.as_json for finding in findings]
        lines = [str(finding) for finding in findings]
        if options["summary"]:
            counts = Counter(finding.code for finding in findings)
            facts = [{"code": c, "severity": c.severity, "count": number} for c, number in counts.items()]
            lines = [f"{number} {c} {c.severity}" for c, number in counts.items()]
        for line in [json.dumps(facts, indent=1)] if options["json"] else lines:
            self.stdout.write(line)
        errors = sum(finding.code.severity == Severity.ERROR for finding in findings)
        if errors or (strict and findings):
            raise CommandError(f"{errors} errors, {len(findings) - errors} warnings.")
