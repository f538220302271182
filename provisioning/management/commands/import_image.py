import re
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from tqdm import tqdm

from core.commands import OurCommand, sentence_of
from images.models import Image
from plans.models import OperatingSystem, OsVersion
from provisioning import images
from provisioning.drivers.base import ImageInvalid


def _shown(chunks: images.Chunks, total: int | None) -> images.Chunks:
    """The chunks, with a progress bar at a terminal."""
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
        for chunk in chunks:
            bar.update(len(chunk))
            yield chunk


class Command(OurCommand):
    help = (
        "Take a cloud image (qcow2, with cloud-init) in, so that customers can choose its system. The file "
        "or URL must have the SHA-256 that you give. Each host gets its copy when it is first needed. "
        "Example: manage.py import_image debian-12-genericcloud-amd64.qcow2 --os 'Debian 12' --sha256 0123..."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", help="a path, or an http(s) URL")
        parser.add_argument("--sha256", required=True, help="of the whole file, 64 hexadecimal digits")
        parser.add_argument(
            "--os", required=True, metavar="ID|NAME", help="the version it is: 3, or 'Debian 12'"
        )
        parser.add_argument("--family", help="with a new NAME: the system it belongs to, such as Debian")
        parser.add_argument("--agent", action="store_true", help="the image runs qemu-guest-agent at boot")

    def handle(self, *args: Any, source: str, sha256: str, agent: bool, **options: Any) -> None:
        sha256 = sha256.lower()
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise CommandError("--sha256 should be 64 hexadecimal digits (sha256sum FILE prints them).")
        version = self._version(options["os"], options["family"])
        try:
            image = images.take_in(source=source, sha256=sha256, has_agent=agent, watch=_shown)
        except ImageInvalid as error:
            raise CommandError(str(error)) from None
        self._offer(version, image)
        self.stdout.write(f"os_id {version.pk}, {version}: {images.file_of(sha256)}")

    @transaction.atomic
    def _offer(self, version: OsVersion, image: Image) -> None:
        """Have new servers with this system start from the image.  A system that is new is saved with it."""
        if version.pk is None:
            version.operating_system.save()
        version.image = image
        version.save(update_fields=None if version.pk is None else ["image"])

    def _version(self, wanted: str, family: str | None) -> OsVersion:
        found = OsVersion.objects.filter(
            **({"pk": wanted} if wanted.isdecimal() else {"name": wanted})
        ).first()
        if found:
            return found
        if wanted.isdecimal() or not family:
            raise CommandError(f"There is no system {wanted}. With --family NAME a new one is made.")
        system = OperatingSystem.objects.filter(name=family).first() or OperatingSystem(name=family)
        version = OsVersion(operating_system=system, name=wanted)
        try:
            system.full_clean(validate_unique=False)
            version.clean_fields(exclude=["operating_system"])
        except ValidationError as error:
            raise CommandError(sentence_of(error)) from None
        return version
