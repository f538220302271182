from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from core.commands import OurCommand, whole_number
from inventory.models import Hypervisor
from plans.models import Location
from provisioning import hypervisors
from provisioning.drivers.base import HostFacts, HypervisorError

KEEP_MEMORY_MIB, KEEP_DISK_GIB = 1024, 10  # for the host itself, and for images
FIELDS = {
    "uri": "uri",
    "pool": "storage_pool",
    "network": "network",
    "domain_type": "domain_type",
    "vcpus": "vcpus",
    "memory_mib": "memory_mib",
    "disk_gib": "disk_gib",
    "max_operations": "max_operations",
}
MEASURED_AGAIN = ("memory_mib", "disk_gib")  # of a host that is known, if --keep-... says so


class Command(OurCommand):
    help = (
        "Register a libvirt host, or change the entry of one: what no option names stays as it is. A new "
        "host is asked what it has: memory is sold once, vCPUs four times, disk by allocation; options say "
        "otherwise. Its storage pool and network must exist in libvirt; they are started, and our network "
        "filter is brought up to date. Example: manage.py add_hypervisor kvm1 --location us-west "
        "--uri qemu+ssh://root@kvm1.example.com/system --pool default --network default"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what you call it")
        parser.add_argument("--location", metavar="CODE", help="us-west; a new host needs it")
        parser.add_argument(
            "--uri", help="libvirt's: qemu+ssh://..., qemu+tls://..., qemu:///system; a new host needs it"
        )
        parser.add_argument("--pool", help="libvirt's name of the storage pool (default)")
        parser.add_argument("--network", help="libvirt's name of the guests' network (default)")
        parser.add_argument(
            "--domain-type", choices=["kvm", "qemu", "test"], help="default: what works there"
        )
        parser.add_argument("--vcpus", type=whole_number(1), help="for sale; default: four times the host's")
        parser.add_argument(
            "--memory-mib", type=whole_number(1), help="for sale; default: the host's less --keep-memory-mib"
        )
        parser.add_argument("--keep-memory-mib", type=whole_number(0), help="for the host itself (1024)")
        parser.add_argument(
            "--disk-gib",
            type=whole_number(1),
            help="for sale; default: the pool's capacity less --keep-disk-gib",
        )
        parser.add_argument(
            "--keep-disk-gib",
            type=whole_number(0),
            help="for the host itself and for images (10)",
        )
        parser.add_argument(
            "--new-identity",
            action="store_true",
            help="the host of this name was reinstalled, and has another UUID since",
        )
        parser.add_argument(
            "--max-operations", type=whole_number(1), help="how many may be under way on it at once (4)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        known = Hypervisor.objects.select_related("location").filter(name=name).first()
        if known is None and not (options["location"] and options["uri"]):
            raise CommandError(f"There is no hypervisor {name} yet: a new one needs --location and --uri.")
        said = _said(options)
        # As it will be: what is said, else what is known of it.  Whichever host answers is judged below.
        entry = known or Hypervisor(domain_type=Hypervisor.DomainType.QEMU)
        entry.host_uuid = None
        for field, value in said.items():
            setattr(entry, field, value)
        entry.clean_fields(exclude=["name", "location", "vcpus", "memory_mib", "disk_gib"])
        try:
            driver = hypervisors.bare_driver_for(entry)
            host_uuid = driver.host_uuid()
            _refuse_another_host(name, host_uuid, options["new_identity"])
            driver.prepare()
            facts = driver.facts()
        except HypervisorError as error:
            raise CommandError(f"{entry.uri}: {error}") from None
        measured = _measured(facts, options)
        if known is not None:
            measured = {
                field: measured[field] for field in MEASURED_AGAIN if options[f"keep_{field}"] is not None
            }
        host = _registered(name, {"host_uuid": host_uuid} | measured | said)
        self.stdout.write(
            f"{host} ({host.domain_type}) has {host.vcpus} vCPUs, {host.memory_mib} MiB of memory "
            f"and {host.disk_gib} GiB of disk for sale"
        )


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """The fields that the options name.  Of a host that is known the others stay as they are."""
    said = {field: options[option] for option, field in FIELDS.items() if options[option]}
    if options["location"]:
        location = Location.objects.filter(code=options["location"]).first()
        if location is None:
            raise CommandError(
                f"There is no location {options['location']}. manage.py load_catalogue makes some."
            )
        said["location"] = location
    return said


def _measured(facts: HostFacts, options: dict[str, Any]) -> dict[str, Any]:
    """What the host is and can sell, less what is kept for itself."""

    def less(amount: int, kept: int | None, usual: int) -> int:
        return max(0, amount - (usual if kept is None else kept))

    return {
        "domain_type": facts.domain_type,
        "vcpus": 4 * facts.vcpus,
        "memory_mib": less(facts.memory_mib, options["keep_memory_mib"], KEEP_MEMORY_MIB),
        "disk_gib": less(facts.disk_gib, options["keep_disk_gib"], KEEP_DISK_GIB),
    }


def _refuse_another_host(name: str, host_uuid: UUID | None, new_identity: bool) -> None:
    """A host is sold once, and a name stays with its host."""
    if host_uuid and (same := Hypervisor.objects.filter(host_uuid=host_uuid).exclude(name=name).first()):
        raise CommandError(
            f"This host is registered already, as {same} ({same.uri}). If these are two hosts, they were "
            "cloned: give each a host_uuid of its own in its libvirtd.conf."
        )
    known = Hypervisor.objects.filter(name=name).exclude(host_uuid=None).first()
    if known and known.host_uuid != host_uuid and not new_identity:
        raise CommandError(
            f"{name} is the host {known.host_uuid}, and another one answers there ({host_uuid}). If it was "
            "reinstalled and has its old disks, say so: --new-identity. Another host gets another name."
        )


@transaction.atomic
def _registered(name: str, described: dict[str, Any]) -> Hypervisor:
    """The host of this name, described so.  Locked: while it is judged, nobody claims any of it."""
    found = Hypervisor.objects.select_for_update(no_key=True).filter(name=name).first()
    host = found or Hypervisor(name=name)
    if found and described.get("location", found.location) != found.location and found.placements.exists():
        raise CommandError(
            f"{name} has servers, which were sold in {found.location}: it stays there until they are gone."
        )
    for field, value in described.items():
        setattr(host, field, value)
    host.full_clean()
    host.save(update_fields=list(described) if found else None)
    return host
