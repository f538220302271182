"""Two ways to make a machine without the product: a bare libvirt script, and virt-install.

A machine is made when it runs.  ``Ear`` says when that was, for ours in the same way.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import libvirt

from deploy.local.errors import LocalError
from deploy.local.libvirtd import Libvirtd
from deploy.local.processes import as_root
from provisioning.drivers import network_filter, seed
from provisioning.drivers.base import Image, MachineSpec, Nic
from provisioning.drivers.domain_xml import Paths, domain_name, domain_xml
from provisioning.drivers.storage_names import disk_volume, image_volume, seed_volume

PATIENCE_S = 60
GIB = 2**30
# None that the API gives out: it begins at the other end of the network.
_numbers: Iterator[int] = count(200)


def new_spec(image: Image) -> MachineSpec:
    """A machine like those that customers get from ``provision``'s plan."""
    number = 200 + next(_numbers) % 50
    nic = Nic(
        mac=f"52:54:ff:00:00:{number:02x}",
        network="vps",
        addresses=(ip_interface(f"203.0.113.{number}/24"), ip_interface(f"2001:db8:113::{number}/64")),
        gateways=(ip_address("203.0.113.1"), ip_address("2001:db8:113::1")),
        speed_mbps=1000,
    )
    return MachineSpec(
        uuid=uuid4(),
        name="bench",
        account="bench",
        hostname="bench",
        vcpus=1,
        memory_mib=128,
        disk_gib=1,
        image=image,
        nics=(nic,),
    )


class Ear:
    """Hears from libvirtd which machine begins to run, and notes when."""

    def __init__(self, connection: Any) -> None:
        self._began: dict[str, float] = {}
        self._news = threading.Condition()
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._heard, None)

    def await_start(self, name: str) -> float:
        """When the machine began to run (monotonic)."""
        with self._news:
            if not self._news.wait_for(lambda: name in self._began, PATIENCE_S):
                raise LocalError(f"{name} does not run after {PATIENCE_S} s.")
            return self._began[name]

    def _heard(self, _: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            with self._news:
                self._began[domain.name()] = monotonic()
                self._news.notify_all()


class Bare:
    """The floor: the five libvirt calls that every way needs, on one connection."""

    def __init__(self, connection: Any, image: Image, *, is_filtered: bool = True) -> None:
        self._connection = connection
        self._pool = connection.storagePoolLookupByName("vps")
        self._folder = Path(self._pool.storageVolLookupByName(image_volume(image)).path()).parent
        self._image, self._is_filtered = image, is_filtered

    def make(self) -> str:
        """Make a machine, and return its name when it runs."""
        spec = new_spec(self._image)
        disk, iso = disk_volume(spec.uuid), seed_volume(spec.uuid)
        backing = f"<path>{self._folder / image_volume(self._image)}</path><format type='qcow2'/>"
        self._pool.createXML(
            f"<volume><name>{disk}</name><capacity>{spec.disk_gib * GIB}</capacity><allocation>0</allocation>"
            f"<target><format type='qcow2'/></target><backingStore>{backing}</backingStore></volume>"
        )
        content = seed.seed_iso(spec)
        volume = self._pool.createXML(
            f"<volume><name>{iso}</name><capacity>{len(content)}</capacity><allocation>0</allocation>"
            f"<target><format type='raw'/></target></volume>"
        )
        stream = self._connection.newStream()
        volume.upload(stream, 0, len(content))
        stream.sendAll(lambda stream, size, chunks: chunks.pop() if chunks else b"", [content])
        stream.finish()
        self._connection.defineXML(self._definition(spec, disk, iso)).create()
        return _name_of(spec)

    def remove(self, name: str) -> None:
        domain = self._connection.lookupByName(name)
        uuid = UUID(domain.UUIDString())
        domain.destroy()
        domain.undefine()
        for volume in (disk_volume(uuid), seed_volume(uuid)):
            self._pool.storageVolLookupByName(volume).delete()

    def _definition(self, spec: MachineSpec, disk: str, iso: str) -> str:
        paths = Paths(
            disk=str(self._folder / disk),
            seed=str(self._folder / iso),
            console_log=f"/var/log/libvirt/qemu/{domain_name(spec.uuid)}-console.log",
        )
        xml = domain_xml(spec, domain_type="qemu", paths=paths)
        # Not a name of ours: reconcile would take it for a machine without a row, and sell nothing there.
        xml = xml.replace(f"<name>{domain_name(spec.uuid)}</name>", f"<name>{_name_of(spec)}</name>")
        if self._is_filtered:
            return xml
        before, _, rest = xml.partition("<filterref")
        return before + rest.partition("</filterref>")[2]


def _name_of(spec: MachineSpec) -> str:
    return f"floor-{spec.uuid}"


class VirtInstall:
    """virt-install, as a person would run it on the host."""

    def __init__(
        self, libvirtd: Libvirtd, connection: Any, image: Image, folder: Path, *, is_filtered: bool
    ) -> None:
        self._libvirtd, self._connection, self._image = libvirtd, connection, image
        self._folder, self._is_filtered = folder, is_filtered
        self._pool = connection.storagePoolLookupByName("vps")
        self._backing = self._pool.storageVolLookupByName(image_volume(image)).path()

    def make(self) -> str:
        """Make a machine, and return its name when it runs."""
        spec = new_spec(self._image)
        user_data, network_config = self._folder / "user-data", self._folder / "network-config"
        user_data.write_text("#cloud-config\n" + json.dumps(seed.user_data(spec)))
        network_config.write_text(json.dumps(seed.network_config(spec)))
        name = f"bench-{spec.uuid}"
        network = f"network=vps,model=virtio,mac={spec.nics[0].mac}"
        command = [
            *("virt-install", "--connect", "qemu:///system", "--name", name, "--virt-type", "qemu"),
            *("--vcpus", str(spec.vcpus), "--memory", str(spec.memory_mib), "--import"),
            "--disk",
            f"pool=vps,size={spec.disk_gib},format=qcow2,backing_store={self._backing},backing_format=qcow2",
            *("--cloud-init", f"user-data={user_data},network-config={network_config}"),
            *("--network", network + (_filter_options(spec.nics[0]) if self._is_filtered else "")),
            *("--osinfo", "detect=off,require=off", "--graphics", "none", "--noautoconsole"),
        ]
        done = subprocess.run(self._on_host(*command), capture_output=True, text=True)
        if done.returncode:
            raise LocalError(f"virt-install failed: {done.stdout}{done.stderr}")
        return name

    def remove(self, name: str) -> None:
        domain = self._connection.lookupByName(name)
        domain.destroy()
        domain.undefine()
        self._pool.storageVolLookupByName(f"{name}.qcow2").delete()

    def _on_host(self, *command: str) -> list[str]:
        """In libvirtd's own namespaces: virt-install takes its host for this one, and writes files there."""
        spaces = f"/proc/{self._libvirtd.pid}/ns"
        return as_root("nsenter", f"--mount={spaces}/mnt", f"--net={spaces}/net", "--", *command)


def _filter_options(nic: Nic) -> str:
    """virt-install's words for the filter that our machines have."""
    options = [f"filterref.filter={network_filter.NAME}"]
    for number, (name, value) in enumerate(network_filter.parameters(nic), start=1):
        for attribute, text in (("name", name), ("value", value)):
            step = f"xpath{2 * number - (attribute == 'name')}"
            options += [f"{step}.set=./filterref/parameter[{number}]/@{attribute}", f"{step}.value={text}"]
    return "," + ",".join(options)
