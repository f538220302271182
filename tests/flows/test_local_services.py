"""The private services: they start, go on with their data, and leave nothing behind."""

import base64
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from deploy.local import settings
from deploy.local.errors import LocalError
from deploy.local.folder import PROJECT, claimed, write_private
from deploy.local.libvirtd import Libvirtd
from deploy.local.postgres import Postgres
from deploy.local.processes import Process, Service, identify, wait_for
from deploy.local.redis import Redis
from deploy.local.services import Services

IDLE_GUEST = """
<domain type='qemu'>
  <name>idle</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <interface type='network'><source network='vps'/></interface>
  </devices>
</domain>
"""


@pytest.fixture
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a path short enough for sockets, which only we may enter."""
    return tmp_path_factory.mktemp("v")


@pytest.fixture
def running() -> Iterator[list[Service]]:
    """Services put in here are stopped at the end, whatever happens."""
    services: list[Service] = []
    yield services
    for service in services:
        service.stop()


# A folder


@pytest.mark.parametrize("service", [Postgres, Redis, Libvirtd])
def test_a_socket_with_too_long_a_path_is_refused_in_words(
    service: type[Postgres | Redis | Libvirtd], tmp_path: Path
) -> None:
    with pytest.raises(LocalError, match=r"Linux allows 107\. Set VPS_VAR"):
        service(tmp_path / ("x" * 100)).start()


def test_a_folder_is_one_runs_own(var: Path) -> None:
    with claimed(var), pytest.raises(LocalError, match="runs in"), claimed(var):
        pass
    with claimed(var):
        pass


def test_a_folder_with_things_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear Alice")
    with pytest.raises(LocalError, match="things of others"), claimed(tmp_path):
        pass


def test_a_private_file_is_private_from_its_first_moment(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old, and open to all")
    write_private(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)


def test_the_secrets_stay_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = (*settings.SECRETS, "VPS_BACKUP_KEY")
    for name in (*kept, "VPS_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    first = settings.load(tmp_path, {})
    monkeypatch.setenv("VPS_DEBUG", "true")
    second = settings.load(tmp_path, {})
    assert [second[name] for name in kept] == [first[name] for name in kept]
    assert len(base64.b64decode(first["VPS_BACKUP_KEY"])) == 32
    assert settings.read(tmp_path / "private.env")["VPS_DEBUG"] == "true"


def test_a_service_that_the_environment_names_is_not_ours(tmp_path: Path) -> None:
    services = Services(
        tmp_path, {"DATABASE_URL": "postgres://db/vps", "VPS_HYPERVISOR_URI": "test:///default"}
    )
    assert [service.name for service in services.private] == ["redis"]
    assert services.urls["DATABASE_URL"] == "postgres://db/vps"


# A process


def test_stopping_ends_one_process_and_no_other_of_that_name(var: Path) -> None:
    ours, other = Process("ours", var), Process("other", var)
    for process in (ours, other):
        process.start(["sleep", "60"])
    assert ours.stop()
    assert (ours.pid, other.pid is not None) == (None, True)
    assert not ours.stop(), "stopping what is stopped is nothing"
    other.stop()


def test_a_process_that_got_the_id_of_ours_is_not_ours(var: Path) -> None:
    (var / "pids").mkdir()
    (var / "pids" / "ours").write_text(f"{os.getpid()} 1\n")
    process = Process("ours", var)
    assert process.pid is None
    assert not process.stop(), "it would have been this very test"


def test_a_process_that_does_not_listen_is_cut(var: Path) -> None:
    deaf = Process("deaf", var)
    deaf.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    deaf.wait_until(lambda: "ready" in deaf.log.read_text(), 5)
    assert deaf.stop(patience_s=0.2)
    assert deaf.exit_code == -signal.SIGKILL


def test_a_process_that_fails_says_why(var: Path) -> None:
    broken = Process("broken", var)
    broken.start(["sh", "-c", "echo the disk is full; exit 3"])
    with pytest.raises(LocalError, match=r"(?s)broken ended at once \(exit code 3\).*the disk is full"):
        broken.wait_until(lambda: False, 5)


def test_no_process_outlives_a_killed_parent(var: Path) -> None:
    parent = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from deploy.local.processes import Process
        child = Process("child", Path({str(var)!r}))
        child.start(["sh", "-c", "echo up; exec sleep 60"])
        child.wait_until(lambda: "up" in child.log.read_text(), 30)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    subprocess.run([sys.executable, "-c", parent], cwd=PROJECT)
    child = Process("child", var)
    assert wait_for(lambda: child.pid is None, 5)


# Postgres and Redis


def test_postgres_answers_on_its_socket_and_goes_on_with_its_data(var: Path, running: list[Service]) -> None:
    postgres = Postgres(var, durable=False)
    running.append(postgres)
    postgres.start()
    postgres.psql("CREATE TABLE kept (word text); INSERT INTO kept VALUES ('still here')")
    assert postgres.psql("SHOW listen_addresses") == "", "no TCP"

    postgres.stop()
    assert postgres.pid is None
    postgres.start()
    assert postgres.psql("SELECT word FROM kept") == "still here"


def test_a_postgres_that_a_dead_run_left_is_replaced(var: Path, running: list[Service]) -> None:
    left = Postgres(var, durable=False)
    running.append(left)
    left.start()
    before = left.pid
    ours = Postgres(var, durable=False)  # a new run knows nothing but the folder
    ours.start()
    running.append(ours)
    assert before is not None
    assert identify(before) is None
    assert ours.psql("SELECT 1") == "1"


def test_redis_answers_on_its_socket_only(var: Path, running: list[Service]) -> None:
    redis = Redis(var)
    running.append(redis)
    redis.start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(redis.socket))
        connection.sendall(b"CONFIG GET port\r\n")
        assert b"\r\n0\r\n" in connection.recv(100)
    assert redis.socket.stat().st_mode & 0o077 == 0


# libvirt


@pytest.fixture(scope="module")
def second_libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    """One beside the suite's own, as a second host would be."""
    service = Libvirtd(
        tmp_path_factory.mktemp("v"), "libvirt-b", ipv4="198.51.100.1/24", ipv6="2001:db8:51::1/64"
    )
    service.start()
    yield service
    service.stop(patience_s=0)


def test_libvirt_has_a_pool_and_a_network_that_only_its_guests_see(second_libvirtd: Libvirtd) -> None:
    connection = libvirt.open(second_libvirtd.url)
    try:
        assert connection.storagePoolLookupByName("vps").isActive()
        assert connection.networkLookupByName("vps").isActive()
        assert connection.nwfilterLookupByName("clean-traffic")
    finally:
        connection.close()
    inside = subprocess.check_output(second_libvirtd.enter("ip", "-brief", "address"), text=True)
    outside = subprocess.check_output(["ip", "-brief", "address"], text=True)
    for address in ("198.51.100.1/24", "2001:db8:51::1/64"):
        assert address in inside
        assert address not in outside


def test_guests_end_with_their_libvirt_and_come_back_defined(second_libvirtd: Libvirtd) -> None:
    connection = libvirt.open(second_libvirtd.url)
    connection.defineXML(IDLE_GUEST).create()
    connection.close()
    guest = _qemu_pid(second_libvirtd, "idle")

    second_libvirtd.stop(patience_s=0)
    assert identify(guest) is None
    second_libvirtd.start()

    connection = libvirt.open(second_libvirtd.url)
    assert not connection.lookupByName("idle").isActive()
    connection.close()


def test_guests_end_when_the_run_is_killed(var: Path) -> None:
    run = textwrap.dedent(f"""
        import libvirt, signal, sys
        from pathlib import Path
        from deploy.local.libvirtd import Libvirtd
        service = Libvirtd(Path({str(var)!r}))
        service.start()
        libvirt.open(service.url).createXML({IDLE_GUEST!r})
        print("up", flush=True)
        signal.pause()
    """)
    service = Libvirtd(var)
    with subprocess.Popen([sys.executable, "-c", run], cwd=PROJECT, stdout=subprocess.PIPE) as supervisor:
        try:
            assert supervisor.stdout is not None
            assert supervisor.stdout.readline() == b"up\n", service.last_lines()
            guest = _qemu_pid(service, "idle")
        finally:
            supervisor.kill()
    assert wait_for(lambda: service.pid is None and identify(guest) is None, 10)


def _qemu_pid(service: Libvirtd, name: str) -> int:
    """The id, as seen from outside, of the process that runs a guest."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            its_network = os.readlink(process / "ns" / "net")
        except OSError:
            continue
        if f"guest={name},".encode() in words and its_network == os.readlink(f"/proc/{service.pid}/ns/net"):
            return int(process.name)
    raise AssertionError(f"no process runs {name}")
