"""``make clean``: stops all processes of VAR and removes it."""

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

from deploy.local.errors import LocalError
from deploy.local.folder import claimed, is_ours
from deploy.local.processes import Process, as_root, ask_for_root


def clean(var: Path) -> None:
    """Remove VAR and the tests' folder inside it.  Refuses while a run holds VAR."""
    if not var.exists():
        return
    if not is_ours(var):
        raise LocalError(f"{var} was not made by us. Remove it by hand if you mean it.")
    if any(var.glob("libvirt*")) or any(var.glob("*/libvirt*")):
        ask_for_root("The private libvirt's files are root's:")
    with ExitStack() as all_claimed:
        for lock in [var / "lock", *var.glob("*/lock")]:
            all_claimed.enter_context(claimed(lock.parent))
        for record in [*var.glob("pids/*"), *var.glob("*/pids/*")]:
            Process(record.name, record.parents[1]).stop(patience_s=3)
    remove(var)


def remove(var: Path) -> None:
    try:
        shutil.rmtree(var)
    except PermissionError:
        subprocess.run(as_root("rm", "-rf", "--one-file-system", var), check=True)
