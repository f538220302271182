from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from inventory.models import Hypervisor
from plans.models import Location
from provisioning import hosts
from provisioning.hypervisors.base import HypervisorError


class Command(BaseCommand):
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
        parser.add_argument("--vcpus", type=int, help="for sale; default: four times the host's")
        parser.add_argument(
            "--memory-mib", type=int, help="for sale; default: the host's less --keep-memory-mib"
        )
        parser.add_argument("--keep-memory-mib", type=int, default=1024, help="for the host itself (1024)")
        parser.add_argument(
            "--disk-gib", type=int, help="for sale; default: the pool's capacity less --keep-disk-gib"
        )
        parser.add_argument(
            "--keep-disk-gib", type=int, default=10, help="for the host itself and for images (10)"
        )
        parser.add_argument("--max-operations", type=int, help="how many may be under way on it at once (4)")

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
        try:
            driver = hosts.driver(entry)
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
            "domain_type": options["domain_type"] or facts.domain_type,
            "storage_pool": entry.storage_pool,
            "network": entry.network,
        }
        if options["max_operations"]:
            described["max_operations"] = options["max_operations"]
        host, _ = Hypervisor.objects.update_or_create(name=options["name"], defaults=described | capacity)
        self.stdout.write(
            f"{host} ({host.domain_type}) has {host.vcpus} vCPUs, {host.memory_mib} MiB of memory "
            f"and {host.disk_gib} GiB of disk for sale"
        )
