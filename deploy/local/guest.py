"""The tiny guest's image: built once for each state of ``deploy/guest``, and kept."""

import fcntl
import hashlib
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.folder import PROJECT
from deploy.local.processes import Process

SOURCES = PROJECT / "deploy" / "guest"
PATIENCE_S = 600


class GuestImage:
    """The image under VAR.  ``build`` may be repeated, and done by several at once."""

    def __init__(self, var: Path) -> None:
        self.folder = var / "guest"
        self.path = self.folder / f"guest-{_digest(SOURCES)}.qcow2"
        # A shell handles a signal only after the program that it waits for has ended.
        self._process = Process("guest-image", var, stop_children=True)

    def build(self) -> Path:
        """The path of the image, built now if need be (about half a minute)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.path.exists():
                self._build()
        return self.path

    def stop(self) -> None:
        """Stop a build in progress."""
        self._process.stop(patience_s=5)

    def _build(self) -> None:
        self._process.start([SOURCES / "build", self.path])
        ended = self._process.wait_gone(PATIENCE_S)
        self._process.stop()
        if not (ended and self.path.exists()):
            raise LocalError(f"The guest image was not built. {self._process.last_lines()}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(folder: Path) -> str:
    """Twelve digits that change with any file in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{path.relative_to(folder)} {sha256(path)}\n" for path in files)
    return hashlib.sha256(sums.encode()).hexdigest()[:12]
