from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from core.commands import OurCommand, whole_number
from inventory.models import Hypervisor
from plans.models import Location
from provisioning import hypervisors
from provisioning.drivers.base import HypervisorError


class Command(OurCommand):
    help = (
        "Register a libvirt host, or bring its entry up to date. The host is asked what it has: memory is "
        "sold once, vCPUs four times, disk by allocation; options say otherwise. Its storage pool and "
        "network must exist in libvirt. Example: manage.py add_hypervisor kvm1 --location us-west "
        "--uri qemu+ssh://root@kvm1.example.com/system --pool default --network default"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what you call it")
        parser.add_argument("--location", required=True, metavar="CODE", help="us-west")
        parser.add_argument(
            "--uri", required=True, help="libvirt's: qemu+ssh://..., qemu+tls://..., qemu:///system"
        )
        parser.add_argument("--pool", default="default", help="libvirt's name of the storage pool")
        parser.add_argument("--network", default="default", help="libvirt's name of the guests' network")
        parser.add_argument(
            "--domain-type", choices=["kvm", "qemu", "test"], help="default: what works there"
        )
        parser.add_argument("--vcpus", type=whole_number(1), help="for sale; default: four times the host's")
        parser.add_argument(
            "--memory-mib", type=whole_number(1), help="for sale; default: the host's less --keep-memory-mib"
        )
        parser.add_argument(
            "--keep-memory-mib", type=whole_number(0), default=1024, help="for the host itself (1024)"
        )
        parser.add_argument(
            "--disk-gib",
            type=whole_number(1),
            help="for sale; default: the pool's capacity less --keep-disk-gib",
        )
        parser.add_argument(
            "--keep-disk-gib",
            type=whole_number(0),
            default=10,
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
        location = Location.objects.filter(code=options["location"]).first()
        if location is None:
            raise CommandError(
                f"There is no location {options['location']}. manage.py load_catalogue makes some."
            )
        entry = Hypervisor(
            uri=options["uri"],
            domain_type=options["domain_type"] or Hypervisor.DomainType.QEMU,
            storage_pool=options["pool"],
            network=options["network"],
        )
        entry.clean_fields(exclude=["name", "location", "vcpus", "memory_mib", "disk_gib"])
        try:
            driver = hypervisors.bare_driver_for(entry)
            host_uuid = driver.host_uuid()
            _refuse_another_host(options["name"], host_uuid, options["new_identity"])
            driver.prepare()
            facts = driver.facts()
        except HypervisorError as error:
            raise CommandError(f"{options['uri']}: {error}") from None
        capacity = {
            "vcpus": options["vcpus"] or 4 * facts.vcpus,
            "memory_mib": options["memory_mib"] or max(0, facts.memory_mib - options["keep_memory_mib"]),
            "disk_gib": options["disk_gib"] or max(0, facts.disk_gib - options["keep_disk_gib"]),
        }
        described = {
            "location": location,
            "uri": entry.uri,
            "host_uuid": host_uuid,
            "domain_type": options["domain_type"] or facts.domain_type,
            "storage_pool": entry.storage_pool,
            "network": entry.network,
        }
        if options["max_operations"]:
            described["max_operations"] = options["max_operations"]
        host = _registered(options["name"], described | capacity)
        self.stdout.write(
            f"{host} ({host.domain_type}) has {host.vcpus} vCPUs, {host.memory_mib} MiB of memory "
            f"and {host.disk_gib} GiB of disk for sale"
        )


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
    for field, value in described.items():
        setattr(host, field, value)
    host.full_clean()
    host.save(update_fields=list(described) if found else None)
    return host
