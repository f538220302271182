"""``make run``: starts everything, up to an API that boots guests, and stops it on Ctrl-C."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import ip_interface
from pathlib import Path
from types import FrameType

from deploy.local import settings
from deploy.local.errors import LocalError
from deploy.local.folder import PROJECT, claimed
from deploy.local.guest import GuestImage, sha256
from deploy.local.libvirtd import IPV4, IPV6, NETWORK, POOL
from deploy.local.processes import Program
from deploy.local.services import Services, side_by_side
from deploy.local.supervision import supervise

BIN = Path(sys.executable).parent
LOCATION = "us-west"
HYPERVISOR = "local"
# The contract's own POST works: in the demo, its plan fits and its system is the tiny guest's.
DEMO = Path(__file__).with_name("demo.json")
PLAN_ID, OS_ID = "1", "5"
CATALOGUE = (["load_catalogue"], ["load_catalogue", str(DEMO)])
ACCOUNT = "demo@example.com"
# Disks are thin and the demo's guest fills 20 MB: even a small machine can offer some.
DISK_GIB_FOR_SALE = "1000"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Ctrl-C, or another signal to stop."""


def say(text: str) -> None:
    print(text, flush=True)


def run(var: Path, port: int) -> None:
    """Run everything until Ctrl-C; then, or when a part fails for good, stop all that was started."""
    with _stoppable(), claimed(var):
        _refuse_taken(port)
        services, image = Services(var), GuestImage(var)
        servers = Servers(var, port)
        try:
            with suppress(Stopped):
                _bring_up(var, services, image, servers)
                supervise([*services.private, *servers.parts], say)
        finally:
            _ignore_signals()
            say("\nstopping")
            image.stop()
            servers.stop()
            services.stop()


def run_services(var: Path) -> None:
    """Run the private services only, until Ctrl-C."""
    with _stoppable(), claimed(var):
        services = Services(var)
        try:
            with suppress(Stopped):
                services.ask_for_root()
                services.start(say)
                settings.load(var, services.urls)
                say(f"Settings for manage.py are in {var / 'private.env'}. Ctrl-C stops.")
                supervise(services.private, say)
        finally:
            _ignore_signals()
            services.stop()


def api_command(port: int) -> list[str | Path]:
    """The API's main process, which starts the processes that answer.  It stops within five seconds."""
    return [
        *(BIN / "gunicorn", "--config", "python:vpsorg.gunicorn"),
        *("--bind", f"127.0.0.1:{port}", "--graceful-timeout", "5"),
    ]


MEMORY = {"MALLOC_ARENA_MAX": "2"}  # as in the Dockerfile, which says why


class Servers:
    """The product's own processes: the API, and those behind it."""

    def __init__(self, var: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"
        commands: dict[str, list[str | Path]] = {
            "api": api_command(port),
            "worker": [
                *(BIN / "celery", "-A", "vpsorg", "worker", "--concurrency", "4", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle"),  # there is only this one
            ],
            "backups": [
                *(BIN / "celery", "-A", "vpsorg", "worker", "--queues", "backups", "--concurrency", "2"),
                *("--hostname", "backups@%h", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle"),
            ],
            "webhooks": [
                *(BIN / "celery", "-A", "vpsorg", "worker", "--queues", "webhooks", "--pool", "threads"),
                *("--concurrency", "4", "--hostname", "webhooks@%h", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle"),
            ],
            "scheduler": [sys.executable, "manage.py", "scheduler"],
            "host-events": [sys.executable, "manage.py", "host_events"],
        }
        self.parts = [Program(name, var, command, cwd=PROJECT) for name, command in commands.items()]

    def start(self, env: Mapping[str, str]) -> None:
        for part in self.parts:
            part.environment = {**env, **MEMORY}
            part.start()

    def stop(self) -> None:
        """Stop taking work, give work in progress a moment, then stop."""
        side_by_side(part.stop for part in self.parts)

    def wait_until_answering(self) -> None:
        self.parts[0].wait_until(lambda: self.answer("none") != 0, 60)

    def answer(self, token: str) -> int:
        """The HTTP status of a first API request; 0 if nothing answers."""
        request = urllib.request.Request(  # noqa: S310 (our own address)
            f"{self.url}/servers/", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def _bring_up(var: Path, services: Services, image: GuestImage, servers: Servers) -> None:
    services.ask_for_root()
    began = time.monotonic()
    with ThreadPoolExecutor() as threads:
        try:
            if not image.path.exists():
                say("building the guest image (once, about half a minute)")
            built = threads.submit(image.build)
            services.start(say)
            env = os.environ | settings.load(var, services.urls)
            with _timed("database and hypervisor"):
                _manage(env, ["migrate", "--no-input"], *CATALOGUE, *_registrations(services))
            servers.start(env)
            with _timed("guest image"):
                _manage(env, ["import_image", *_described(built.result())])
        except BaseException:
            image.stop()
            raise
    token, password = _demo_token(var, env, servers), _first_login(var, env)
    settings.write(
        var / "demo.env",
        {"VPS_API_URL": servers.url, "VPS_API_TOKEN": token, "VPS_ADMIN_PASSWORD": password},
    )
    say(f"ready ({time.monotonic() - began:.1f} s)\n{_welcome(servers.url, token, password, var)}")


def _registrations(services: Services) -> Iterator[list[str]]:
    """The management commands that register the host and its addresses."""
    # A libvirt named by the environment is not ours: use its default pool and network.
    foreign = "VPS_HYPERVISOR_URI" in os.environ
    pool = os.environ.get("VPS_HYPERVISOR_POOL") or ("default" if foreign else POOL)
    network = os.environ.get("VPS_HYPERVISOR_NETWORK") or ("default" if foreign else NETWORK)
    yield [
        *("add_hypervisor", HYPERVISOR, "--location", LOCATION),
        *("--uri", services.urls["VPS_HYPERVISOR_URI"], "--pool", pool, "--network", network),
        *("--disk-gib", DISK_GIB_FOR_SALE),
    ]
    for gateway in (ip_interface(IPV4), ip_interface(IPV6)):
        where = ["--location", LOCATION, "--network", str(gateway.network), "--gateway", str(gateway.ip)]
        yield ["add_ip_pool", *where]


def _described(image: Path) -> list[str]:
    return [str(image), "--os", OS_ID, "--sha256", sha256(image), "--agent"]


def _demo_token(var: Path, env: Mapping[str, str], servers: Servers) -> str:
    """A token that works, the same from run to run."""
    token = settings.read(var / "demo.env").get("VPS_API_TOKEN", "none")
    servers.wait_until_answering()
    if servers.answer(token) != 200:
        token = _manage(env, ["create_token", "--account", ACCOUNT, "--name", "demo"]).strip()
    if (status := servers.answer(token)) != 200:
        raise LocalError(f"{servers.url}/servers/ answers {status}. {servers.parts[0].last_lines()}")
    return token


def _first_login(var: Path, env: Mapping[str, str]) -> str:
    """The password of the administrator ``admin``, made in the first run; empty if there is one already."""
    if known := settings.read(var / "demo.env").get("VPS_ADMIN_PASSWORD"):
        return known
    password = secrets.token_urlsafe(12)
    who = ["--username", "admin", "--email", "admin@example.com"]
    try:
        _manage({**env, "DJANGO_SUPERUSER_PASSWORD": password}, ["createsuperuser", "--no-input", *who])
    except LocalError:
        return ""
    return password


def _manage(env: Mapping[str, str], *commands: list[str]) -> str:
    """Run management commands and return their output; a failure is reported in their words."""
    python = [sys.executable, "-m", "deploy.local.commands", json.dumps(commands)]
    done = subprocess.run(python, env=env, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise LocalError("\n    ".join(done.stderr.splitlines()[-15:]))
    return done.stdout


def _welcome(url: str, token: str, password: str, var: Path) -> str:
    site = url.removesuffix("/api/v1")
    login = (
        f"user admin, password {password}"
        if password
        else "with a login of yours (manage.py createsuperuser)"
    )
    body = f'{{"name": "web-server-02", "plan_id": {PLAN_ID}, "os_id": {OS_ID}, "location": "{LOCATION}"}}'
    return f"""
  API     {url}
  token   {token}
  docs    {url}/docs/, to read and to try
  admin   {site}/admin/, {login}
  URL, token and password are in {var / "demo.env"}, logs in {var / "log"}

Boot a server:

  curl -X POST {url}/servers/ \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{body}'

Ctrl-C stops everything. The data stays; make run goes on with it.
"""


def _refuse_taken(port: int) -> None:
    with socket.socket() as attempt:
        # As gunicorn does: an address that a closed connection still holds is free.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            raise LocalError(f"Port {port} is taken. Choose another: make run PORT={port + 1}") from None


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    say(f"{what} ready ({time.monotonic() - began:.1f} s)")


@contextmanager
def _stoppable() -> Iterator[None]:
    """In the block SIGINT, SIGTERM and a closed terminal raise Stopped."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    before = {
        number: signal.signal(number, stop) for number in STOPPING if not nohup or number != signal.SIGHUP
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
