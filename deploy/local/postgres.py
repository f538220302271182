"""A private Postgres with one database, ``vps``, owned by a role of that name."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from deploy.local.errors import LocalError
from deploy.local.folder import socket_path
from deploy.local.processes import Service

VERSIONS = Path("/usr/lib/postgresql")
ROLE = DATABASE = "vps"
# Postgres refuses to run as root, so root runs it as Debian's own user for it.
UNPRIVILEGED = "postgres"
# That user may not be able to reach VAR: in a mount namespace of its own it finds the folder here.
REACHABLE = Path("/var/lib/postgresql")
HURRIED = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]


class Postgres(Service):
    """A private Postgres under VAR, on a socket that only we may open, without TCP.

    ``durable=False`` is for tests: quick, and a power cut may cost all data.
    """

    def __init__(self, var: Path, *, durable: bool = True) -> None:
        super().__init__("postgres", var, stop_signal=signal.SIGINT)  # fast shutdown: disconnects its clients
        self.socket_folder = self.folder / "socket"
        self._durable = durable

    @property
    def url(self) -> str:
        """A libpq URL (psql accepts it): the host is the socket's folder, percent-encoded."""
        return f"postgres://{ROLE}@{quote(os.fspath(self.socket_folder), safe='')}/{DATABASE}"

    def start(self) -> None:
        socket_path(self.socket_folder / ".s.PGSQL.5432")
        self._process.stop()
        self._make_folders()
        if not (self.folder / "data").exists():
            self._create_data()
        settings = [
            "listen_addresses=",
            f'unix_socket_directories="{self._inside / "socket"}"',
            "unix_socket_permissions=0700",
            *([] if self._durable else HURRIED),
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        self._process.start(self._unprivileged("postgres", "-D", self._inside / "data", *options))
        self._process.wait_until(self._answers, 60)
        self._create_database()

    def psql(self, sql: str, database: str = DATABASE) -> str:
        """The plain output of psql for a statement."""
        where = ["-h", str(self.socket_folder), "-U", ROLE, "-d", database]
        psql = [str(self._program("psql")), *where, "-XAtqc", sql]
        done = subprocess.run(psql, capture_output=True, text=True)
        if done.returncode:
            raise LocalError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    @property
    def _inside(self) -> Path:
        """The folder's path in Postgres's mount namespace."""
        return REACHABLE if os.geteuid() == 0 else self.folder

    def _make_folders(self) -> None:
        for folder in (self.folder, self.socket_folder):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            if os.geteuid() == 0:
                shutil.chown(folder, UNPRIVILEGED, UNPRIVILEGED)

    def _create_data(self) -> None:
        # Made beside its place and renamed: a run that was killed leaves no half of it.
        half = self.folder / "data.part"
        shutil.rmtree(half, ignore_errors=True)
        options = ["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        initdb = self._unprivileged("initdb", *options, "--no-sync", "-D", self._inside / "data.part")
        done = subprocess.run(initdb, capture_output=True, text=True)
        if done.returncode:
            raise LocalError(f"initdb failed: {done.stderr.strip()}")
        half.rename(self.folder / "data")

    def _create_database(self) -> None:
        if DATABASE not in self.psql("SELECT datname FROM pg_database", "postgres").split():
            self.psql(f"CREATE DATABASE {DATABASE}", "postgres")

    def _answers(self) -> bool:
        where = ["-h", str(self.socket_folder), "-U", ROLE]
        return subprocess.run([self._program("pg_isready"), "-q", *where]).returncode == 0

    def _unprivileged(self, program: str, *arguments: str | Path) -> list[str | Path]:
        command = [self._program(program), *arguments]
        if os.geteuid() != 0:
            return command
        user = [f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
        # A change of user resets the parent-death signal, so it is set again.
        changed = ["setpriv", *user, "--pdeathsig", "INT", "--", *command]
        script = 'mount --bind "$0" "$1"; shift; cd /; exec "$@"'
        return ["unshare", "--mount", "sh", "-euc", script, self.folder, REACHABLE, *changed]

    def _program(self, name: str) -> Path:
        """The path of a Postgres program: of the version that made the data, else of the newest."""
        version = self.folder / "data" / "PG_VERSION"
        wanted = version.read_text().strip() if version.exists() else "*"
        found = sorted(VERSIONS.glob(f"{wanted}/bin/{name}"), key=lambda path: int(path.parts[-3]))
        if not found:
            raise LocalError(f"No {name} in {VERSIONS}/{wanted}/bin. Install Debian's postgresql: make setup")
        return found[-1]
