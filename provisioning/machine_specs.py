"""Turns rows into the ``MachineSpec`` that a driver is told."""

from ipaddress import ip_address, ip_interface

from backups.models import Backup
from images.models import Image
from inventory.models import Hypervisor, Port
from inventory.pools import network_of
from plans.models import Plan
from provisioning.drivers import base
from provisioning.hypervisors import home_of, port_of
from servers.models import Server
from servers.wishes import RebuildWish, ResizeWish, RestoreWish, Wish


def spec_of(server: Server, wish: Wish) -> base.MachineSpec:
    """The server's machine as an operation wants it.  Raises MachineNotFound for a server without a claim."""
    home = home_of(server)
    # While a resize is under way, more may be claimed than the machine will have.
    size = wish if isinstance(wish, ResizeWish) else home
    return base.MachineSpec(
        uuid=server.uuid,
        name=server.name,
        account=str(server.account.uuid),
        hostname=server.hostname,
        vcpus=size.vcpus,
        memory_mib=size.memory_mib,
        disk_gib=size.disk_gib,
        image=base.Image(sha256=image_of(server, wish).sha256),
        nics=(
            _nic_of(port_of(server), home.hypervisor, wish if isinstance(wish, ResizeWish) else server.plan),
        ),
        authorized_keys=tuple(server.authorized_keys),
        disk_number=(wish.disk_number if isinstance(wish, RebuildWish | RestoreWish) else server.disk_number),
    )


def image_of(server: Server, wish: Wish) -> Image:
    """What the server's disk is based on, or will be once an operation has its wish.

    After a restore: what the backup's disk once began as, which says whether there is an agent in it.
    """
    if isinstance(wish, RestoreWish):
        return Backup.objects.select_related("base_image").get(pk=wish.backup_id).base_image
    return Image.objects.get(pk=wish.image_id) if isinstance(wish, RebuildWish) else server.base_image


def _nic_of(port: Port, hypervisor: Hypervisor, sold: Plan | ResizeWish) -> base.Nic:
    addresses = list(port.addresses.select_related("pool").order_by("pool__family"))
    pools = [address.pool for address in addresses]
    return base.Nic(
        mac=port.mac,
        network=hypervisor.network,
        addresses=tuple(ip_interface(f"{a.address}/{network_of(a.pool).prefixlen}") for a in addresses),
        gateways=tuple(ip_address(pool.gateway) for pool in pools),
        nameservers=tuple(ip_address(text) for pool in pools for text in pool.nameservers),
        speed_mbps=sold.speed_mbps,
    )
