"""Child processes: started, watched, stopped by id, and found again after a crash.

No process outlives the one that started it: the kernel ends it when its parent
dies, however the parent dies.  Should one remain all the same, the record of its
id lets the next start end it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from deploy.local.errors import LocalError

# The kernel sends the parent-death signal when the *thread* that forked ends, so all
# children are forked by one thread that lives as long as this process.
_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")


class Identity(NamedTuple):
    """A process id and its start time: ids are reused, the pair is not."""

    pid: int
    began: int

    @property
    def alive(self) -> bool:
        return identify(self.pid) == self


def identify(pid: int) -> Identity | None:
    """The process with this id, or None when there is none or it is only waiting to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else Identity(pid, int(rest[18]))


def wait_for(question: Callable[[], bool], patience_s: float) -> bool:
    """Poll until the condition holds or the time is over; returns whether it holds."""
    deadline = time.monotonic() + patience_s
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def as_root(*command: str | Path) -> list[str]:
    """The command as root; the password for sudo was asked for before."""
    words = [os.fspath(word) for word in command]
    if os.geteuid() == 0:
        return words
    if not shutil.which("sudo"):
        raise LocalError("This needs root: be root, or install sudo.")
    return ["sudo", "--non-interactive", "--", *words]


def ask_for_root(why: str) -> None:
    """Let sudo ask for the password now, in the terminal; ``as_root`` does not ask."""
    if subprocess.run(as_root("true"), stderr=subprocess.DEVNULL).returncode == 0:
        return
    print(why, "sudo asks for your password.", file=sys.stderr)
    if subprocess.run(["sudo", "true"]).returncode:
        raise LocalError("Without root it does not go on.")


class Process:
    """One process with a name, a log and a record of its id on disk."""

    def __init__(
        self,
        name: str,
        var: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_children: bool = False,
    ) -> None:
        self.name = name
        self.log = var / "log" / f"{name}.log"
        self._record = var / "pids" / name
        self._stop_signal = stop_signal
        self._stop_children = stop_children
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        known = self._recorded()
        return known.pid if known and known.alive else None

    @property
    def exit_code(self) -> int | None:
        """How the child ended, or None while it runs or when there is none."""
        return self._child.poll() if self._child else None

    def start(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        dies_with_us: bool = True,
    ) -> None:
        """Start the command, with its output in the log, away from the terminal's Ctrl-C."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._record.parent.mkdir(parents=True, exist_ok=True)
        if dies_with_us:
            command = ["setpriv", "--pdeathsig", self._stop_signal.name.removeprefix("SIG"), "--", *command]
        with self.log.open("ab") as log:
            self._child = _forker.submit(
                lambda: subprocess.Popen(
                    command, env=env, cwd=cwd, stdin=stdin, stdout=log, stderr=log, process_group=0
                )
            ).result()
        self.record(self._child.pid)

    def record(self, pid: int) -> None:
        """Record this process id as the process to supervise and to stop."""
        known = identify(pid)
        if known:
            self._record.write_text(f"{known.pid} {known.began}\n")

    def wait_until(self, question: Callable[[], bool], patience_s: float) -> None:
        """Wait until the condition holds.  Raises LocalError if the process ends first or takes too long."""
        answered = wait_for(lambda: self.exit_code is not None or question(), patience_s)
        if self.exit_code is not None:
            raise LocalError(f"{self.name} ended at once (exit code {self.exit_code}). {self.last_lines()}")
        if not answered:
            raise LocalError(f"{self.name} did not answer within {patience_s:.0f} s. {self.last_lines()}")

    def stop(self, patience_s: float = 10) -> bool:
        """Stop the process, or one left by an earlier run.  False if there was none."""
        known = self._recorded()
        ended = bool(known and known.alive and self._end(known, patience_s))
        if self._child:
            self._child.wait()
        self._record.unlink(missing_ok=True)
        return ended

    def kill(self) -> None:
        """Kill it without a stop signal first."""
        if known := self._recorded():
            self._send(known.pid, signal.SIGKILL)
            self._wait_gone(known, 5)

    def wait_gone(self, patience_s: float) -> bool:
        """Wait for it to end by itself."""
        return wait_for(lambda: self.exit_code is not None or self.pid is None, patience_s)

    def last_lines(self, count: int = 15) -> str:
        """The end of the log, for an error message."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-count:]
        except OSError:
            lines = []
        return "\n    ".join([f"{self.log} ends with:" if lines else f"{self.log} is empty.", *lines])

    def _recorded(self) -> Identity | None:
        try:
            pid, began = self._record.read_text().split()
        except (OSError, ValueError):
            return None
        return Identity(int(pid), int(began))

    def _end(self, known: Identity, patience_s: float) -> bool:
        self._send(known.pid, self._stop_signal)
        if not self._wait_gone(known, patience_s):
            self._send(known.pid, signal.SIGKILL)
            self._wait_gone(known, 5)
        return True

    def _wait_gone(self, known: Identity, patience_s: float) -> bool:
        # Reading the exit code reaps the process.
        return wait_for(lambda: self.exit_code is not None or not known.alive, patience_s)

    def _send(self, pid: int, what: signal.Signals) -> None:
        """Send a signal.  A process that is already gone is no error."""
        if self._stop_children or what == signal.SIGKILL:
            # Each of our processes leads a group, except under sudo.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, what)
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            pass
        except PermissionError:
            # The shell's own kill: the program of that name is not on every machine.
            kill = as_root("sh", "-c", f"kill -{what.value} {pid}")
            subprocess.run(kill, stderr=subprocess.DEVNULL)


class Part(ABC):
    """A process that knows how it is started, so that it can be started again."""

    def __init__(self, name: str, var: Path, *, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self.name = name
        self._process = Process(name, var, stop_signal=stop_signal)

    @property
    def pid(self) -> int | None:
        """The id of its process while it runs, else None."""
        return self._process.pid

    @abstractmethod
    def start(self) -> None:
        """Start it, in place of one left running.  Raises LocalError when it does not come up."""

    def stop(self) -> None:
        """End it, in good order when it can, and in any case.  May be called again."""
        self._process.stop()

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()

    def last_lines(self) -> str:
        """The end of its log, for an error message."""
        return self._process.last_lines()


class Service(Part):
    """What Postgres, Redis and libvirtd have in common: data in a folder, and a URL that leads to it.

    ``start`` waits until it answers.
    """

    def __init__(self, name: str, var: Path, *, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        super().__init__(name, var, stop_signal=stop_signal)
        self.folder = var / name

    @property
    @abstractmethod
    def url(self) -> str:
        """What leads to it."""


class Program(Part):
    """One of the product's own processes.  ``start`` does not wait for it."""

    def __init__(self, name: str, var: Path, command: Sequence[str | Path], *, cwd: Path) -> None:
        super().__init__(name, var)
        self.environment: Mapping[str, str] | None = None  # None: that of this process
        self._command, self._cwd = command, cwd

    def start(self) -> None:
        self._process.stop()
        self._process.start(self._command, env=self.environment, cwd=self._cwd)

    def wait_until(self, question: Callable[[], bool], patience_s: float) -> None:
        """Wait until the condition holds.  Raises LocalError if the process ends first or takes too long."""
        self._process.wait_until(question, patience_s)
