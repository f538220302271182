"""VAR: the one folder that holds all data of a run, and the rules for it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.errors import LocalError

PROJECT = Path(__file__).resolve().parents[2]
LONGEST_SOCKET_PATH = 107


def var_folder() -> Path:
    """VPS_VAR, or ``var/`` in the project."""
    return Path(os.environ.get("VPS_VAR") or PROJECT / "var").absolute()


def socket_path(path: Path) -> Path:
    """The path of a socket.  Raises LocalError if it is too long for the kernel."""
    length = len(os.fsencode(path))
    if length > LONGEST_SOCKET_PATH:
        raise LocalError(
            f"The socket {path} would have a path of {length} bytes, and Linux allows {LONGEST_SOCKET_PATH}."
            " Set VPS_VAR to a folder with a shorter path."
        )
    return path


def is_ours(var: Path) -> bool:
    """Whether everything in the folder is ours to remove: the project's var/, a new folder, or a used VAR."""
    marks = [var / "lock", *var.glob("*/lock")]
    return (
        var == PROJECT / "var" or not var.exists() or not any(var.iterdir()) or any(m.exists() for m in marks)
    )


@contextmanager
def claimed(var: Path) -> Iterator[None]:
    """Hold VAR exclusively until the block, or the process, ends."""
    if not is_ours(var):
        raise LocalError(f"{var} holds things of others. Set VPS_VAR to an empty or a new folder.")
    var.mkdir(parents=True, exist_ok=True)
    with (var / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(
                f"Something runs in {var} already. Stop it first, or set VPS_VAR to another folder."
            ) from None
        yield


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; a reader sees the whole new file or the old one."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
