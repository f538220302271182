from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import CommandError, CommandParser

from core.commands import OurCommand
from plans.services import CatalogueInvalid, load_catalogue

OURS = Path(__file__).parents[2] / "catalogue.json"


class Command(OurCommand):
    help = (
        "Make the locations, plans and operating systems of a JSON file, or bring them up to date by id. "
        "May be repeated; nothing is removed. To sell your own, copy plans/catalogue.json, edit it, and give "
        "its path."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, default=OURS, help="default: plans/catalogue.json")

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        try:
            catalogue = orjson.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise CommandError(f"{file} cannot be read as JSON: {error}") from None
        try:
            counts = load_catalogue(catalogue)
        except CatalogueInvalid as error:
            raise CommandError(f"{file}: {error}") from None
        self.stdout.write(", ".join(f"{count} {section}" for section, count in counts.items()))
