"""make bench-backup: the cost of copying the disk of a guest that runs, and of making disks from copies."""

import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any, NamedTuple

import libvirt
import libvirt_qemu

from bench import ground
from deploy.local.errors import LocalError
from deploy.local.folder import claimed, var_folder
from deploy.local.guest import GuestImage, sha256
from deploy.local.libvirtd import Libvirtd
from deploy.local.processes import as_root
from deploy.local.run import MEMORY
from provisioning.drivers.domain_xml import domain_name

MIB = 2**20
LUCK = Random(1)  # noqa: S311
FIRST_MIB = 160  # where our content begins: behind the guest's own
CHUNK_MIB = 32
LARGE_GIB = 2048
PLANS = {"content": 4, "large": LARGE_GIB}  # GiB of their disks
SLOW_MIB_PER_S = 1
LOOK_FOR_S = 30
LOAD = (
    "data; while :; do dd if=/dev/zero of=/data/load bs=4k count=16 conv=fsync 2>/dev/null; sleep 0.02; done"
)


class Bench(NamedTuple):
    var: Path
    env: dict[str, str]
    libvirtd: Libvirtd
    connection: Any

    def do(self, *words: str) -> dict[str, Any]:
        """One work of ``bench.copies``."""
        told: dict[str, Any] = json.loads(ground.python(self.env, "bench.copies", *words))
        return told

    def disk(self, uuid: str) -> Path:
        (disk,) = (self.libvirtd.folder / "pool").glob(f"{uuid}*.qcow2")
        return disk


def main(turns: int, mib: int) -> None:
    var = var_folder() / "bench"
    with claimed(var), ExitStack() as running:
        libvirtd = Libvirtd(var)
        running.callback(lambda: libvirtd.stop(patience_s=0))
        libvirtd.start()
        postgres, env = running.enter_context(ground.services(var, durable=True))
        env |= MEMORY | {"VPS_MAX_MANUAL_BACKUPS": "1000"}
        ground.make_empty(postgres, "vps")
        shutil.rmtree(env["VPS_BACKUP_STORE"], ignore_errors=True)
        _open(var, env, libvirtd)
        bench = Bench(var, env, libvirtd, libvirt.open(libvirtd.url))
        server = bench.do("make", "content")
        _fill(bench, server["uuid"], FIRST_MIB, mib)
        print(f"{mib} MiB on a disk of {PLANS['content']} GiB, half of it random, half text.")
        full = _copies(bench, server, turns)
        _later(bench, server, full, mib)
        _restores(bench, server, turns)
        _ten_days(bench, server, mib)
        _latency(bench, server)
        large = bench.do("take", str(bench.do("make", "large")["server"]))
        _row(
            f"memory, a disk of {LARGE_GIB} GiB",
            f"{large['peak_mib']:.0f} MiB",
            large["peak_mib"],
            200,
            "MiB",
        )


def _open(var: Path, env: dict[str, str], libvirtd: Libvirtd) -> None:
    image = GuestImage(var).build()
    plan = var / "plans.json"
    plans = [
        {
            "id": number,
            "name": slug,
            "slug": slug,
            "vcpus": 1,
            "memory_mib": 192,
            "disk_gib": disk_gib,
            "bandwidth_gb": 1,
            "price_monthly": "1.00",
            "price_hourly": "0.0010",
        }
        for number, (slug, disk_gib) in enumerate(PLANS.items(), start=20)
    ]
    plan.write_text(json.dumps({"plans": plans}))
    where = ["--location", "us-west", "--uri", libvirtd.url, "--pool", "vps", "--network", "vps"]
    room = ["--vcpus", "100", "--memory-mib", "100000", "--disk-gib", "100000"]
    networks = {"203.0.113.0/24": "203.0.113.1", "2001:db8:113::/120": "2001:db8:113::1"}
    ground.manage(
        env,
        ["migrate", "--no-input"],
        ["load_catalogue"],
        ["load_catalogue", str(plan)],
        ["add_hypervisor", "bench", *where, *room],
        *(
            ["add_ip_pool", "--location", "us-west", "--network", network, "--gateway", gateway]
            for network, gateway in networks.items()
        ),
        ["import_image", str(image), "--os", "5", "--sha256", sha256(image), "--agent"],
        ["create_token", "--account", "customer@example.com", "--name", "bench"],
    )


def _fill(bench: Bench, uuid: str, at_mib: int, mib: int) -> None:
    """Write through QEMU's block layer, as the guest would: blocks of random bytes and of text in turns."""
    texts = b"".join(path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py")))
    path = bench.var / "chunk"
    for start in range(0, mib, CHUNK_MIB):
        length_mib = min(CHUNK_MIB, mib - start)
        with path.open("wb") as file:
            for number in range(length_mib):
                at = LUCK.randrange(len(texts) - MIB)
                file.write(texts[at : at + MIB] if number % 2 else LUCK.randbytes(MIB))
        _write(bench, uuid, path, (at_mib + start) * MIB, length_mib * MIB)


def _write(bench: Bench, uuid: str, source: Path, offset: int, length: int) -> None:
    domain = bench.connection.lookupByName(domain_name(uuid))
    backend = "/machine/peripheral/virtio-disk0/virtio-backend"
    for command in (f"write -q -s {source} {offset} {length}", "flush"):
        asked = f'qemu-io -d {backend} "{command}"'
        told = libvirt_qemu.qemuMonitorCommand(
            domain, asked, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        )
        if told:
            raise LocalError(f"QEMU did not write: {told}")


def _row(what: str, measured: str, figure: float, most: float, of: str = "x") -> None:
    print(
        f"{what:52}{measured:>22}{figure:10.2f} {of:4}(at most {most:g}){' !' if figure > most else ''}",
        flush=True,
    )


def _qemu_img(*words: str | Path) -> float:
    """Run it, and return its seconds."""
    began = monotonic()
    subprocess.run(as_root("qemu-img", *map(str, words)), check=True)
    return monotonic() - began


def _converted(source: Path, made: Path, *options: str) -> float:
    """Seconds until it is on the disk, as what we make is, and not only in memory."""
    return _qemu_img("convert", "-t", "writeback", *options, "-O", "qcow2", source, made)


def _copies(bench: Bench, server: dict[str, Any], turns: int) -> float:
    """Full copies, ours and qemu-img's in turns.  Returns the seconds of ours."""
    disk, made = bench.disk(server["uuid"]), bench.var / "compressed.qcow2"
    ours: list[dict[str, Any]] = []
    theirs: list[float] = []
    for _ in range(turns):
        bench.do("forget")
        ours.append(bench.do("take", str(server["server"])))
        theirs.append(_converted(disk, made, "-U", "-c", "-o", "compression_type=zstd"))
    if not all(copy["is_full"] for copy in ours):
        raise LocalError("A copy was no full one.")
    full, qemus = (statistics.median(times) for times in ([copy["seconds"] for copy in ours], theirs))
    _row("full copy / qemu-img convert -c (zstd)", f"{full:.1f} s / {qemus:.1f} s", full / qemus, 1.3)
    held = max(copy["held_s"] for copy in ours)
    _row("file systems held still", f"{held:.3f} s", held, 1, "s")
    peak = max(copy["peak_mib"] for copy in ours)
    _row("memory of the worker", f"{peak:.0f} MiB", peak, 200, "MiB")
    return float(full)


def _later(bench: Bench, server: dict[str, Any], full: float, mib: int) -> None:
    _fill(bench, server["uuid"], FIRST_MIB + mib // 3, 50)
    copy = bench.do("take", str(server["server"]))
    measured = f"{copy['seconds']:.1f} s / {full:.1f} s"
    _row("copy after 50 MiB of change / full copy", measured, copy["seconds"] / full, 0.2)


def _restores(bench: Bench, server: dict[str, Any], turns: int) -> None:
    """Disks from a copy, ours and qemu-img's in turns; ours must show what the guest's disk shows."""
    copy = bench.do("take", str(server["server"]))
    ours: list[dict[str, Any]] = []
    theirs: list[float] = []
    for _ in range(turns):
        ours.append(bench.do("restore", str(copy["backup"])))
        theirs.append(_converted(bench.var / "compressed.qcow2", bench.var / "plain.qcow2"))
        made = bench.disk(ours[-1]["uuid"])
        _qemu_img("check", "-q", made)
        _qemu_img("compare", "-q", "-U", made, bench.disk(server["uuid"]))
        subprocess.run(as_root("rm", str(made)), check=True)
    restored, qemus = (statistics.median(times) for times in ([one["seconds"] for one in ours], theirs))
    _row("restored disk / qemu-img convert", f"{restored:.1f} s / {qemus:.1f} s", restored / qemus, 1.5)
    peak = max(one["peak_mib"] for one in ours)
    _row("memory of the worker that restores", f"{peak:.0f} MiB", peak, 200, "MiB")


def _ten_days(bench: Bench, server: dict[str, Any], mib: int) -> None:
    """Ten copies, each day one percent written anew, in one place; then a day on which it is all over."""
    bench.do("forget")
    stored = [bench.do("take", str(server["server"]))["new_bytes"]]
    day = max(1, mib // 100)
    for _ in range(9):
        _fill(bench, server["uuid"], FIRST_MIB + LUCK.randrange(mib - day), day)
        stored.append(bench.do("take", str(server["server"]))["new_bytes"])
    measured = f"{sum(stored) / MIB:.0f} / {stored[0] / MIB:.0f} MiB"
    _row("ten days of 1 % in one place / one full", measured, sum(stored) / stored[0], 1.2)
    for _ in range(day * MIB // (64 * 1024)):
        at = FIRST_MIB * MIB + LUCK.randrange(mib * 16) * 64 * 1024
        _write(bench, server["uuid"], bench.var / "chunk", at, 64 * 1024)
    more = bench.do("take", str(server["server"]))["new_bytes"]
    print(
        f"{'a day of 1 % in 64 KiB all over / one full':52}{more / MIB:18.0f} MiB{more / stored[0]:10.2f} x"
    )


def _latency(bench: Bench, server: dict[str, Any]) -> None:
    """What a write of a guest takes, without a backup, and while one goes into a slow store."""
    domain = bench.connection.lookupByName(domain_name(server["uuid"]))
    asked = {"path": "/bin/sh", "arg": ["-c", LOAD]}
    words = json.dumps({"execute": "guest-exec", "arguments": asked})
    libvirt_qemu.qemuAgentCommand(domain, words, 10, 0)
    sleep(5)
    with _a_slow_copy(bench, server) as is_stored:
        while not is_stored():
            sleep(0.1)
        during = _write_ms(domain)
    quiet = _write_ms(domain)
    _row(
        f"a guest's write, a copy going to {SLOW_MIB_PER_S} MiB/s / none",
        f"{during:.2f} ms / {quiet:.2f} ms",
        during / quiet,
        1.2,
    )


@contextmanager
def _a_slow_copy(bench: Bench, server: dict[str, Any]) -> Iterator[Callable[[], bool]]:
    """A full copy that goes slowly to the store while the block looks; yields whether it has come so far."""
    bench.do("forget")
    store = Path(bench.env["VPS_BACKUP_STORE"])
    words = ["take", str(server["server"]), str(SLOW_MIB_PER_S), str(LOOK_FOR_S + 60)]
    copy = ground.begin(bench.env, "bench.copies", *words)
    try:
        yield lambda: any(store.glob("accounts/*/pieces/*/*"))
        if copy.poll() is not None:
            raise LocalError("The slow copy ended before it was looked at.")
        ground.output_of(copy)
    finally:
        copy.kill()


def _write_ms(domain: Any) -> float:
    """The mean of what QEMU needed for a write of the guest, for so many seconds from now."""
    before = domain.blockStatsFlags("vda")
    sleep(LOOK_FOR_S)
    after = domain.blockStatsFlags("vda")
    writes = after["wr_operations"] - before["wr_operations"]
    if writes < 100:
        raise LocalError(f"The guest wrote {writes} times only.")
    return float((after["wr_total_times"] - before["wr_total_times"]) / writes / 1e6)
