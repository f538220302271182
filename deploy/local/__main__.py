"""The command line:  python -m deploy.local --help"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.local import folder
from deploy.local.clean import clean
from deploy.local.errors import LocalError
from deploy.local.folder import claimed
from deploy.local.libvirtd import Libvirtd
from deploy.local.postgres import Postgres
from deploy.local.processes import ask_for_root
from deploy.local.run import Stopped, run, run_services

HELP = """\
Run the whole product on this machine, without touching the machine's own services.

Everything lives under one folder: var/ in the project, or what VPS_VAR names.
DATABASE_URL, REDIS_URL and VPS_HYPERVISOR_URI in the environment replace the
private Postgres, Redis and libvirt; such a libvirt host needs a storage pool
and a network that are both called "vps".
"""


def main() -> int:
    arguments = parser().parse_args()
    try:
        return int(arguments.do(arguments) or 0)
    except Stopped:
        return 0
    except LocalError as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(prog="python -m deploy.local", description=HELP, formatter_class=plain)
    top.set_defaults(var=folder.var_folder())
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("run", help="everything, until Ctrl-C; what make run does")
    one.add_argument(
        "--port", type=port, default=os.environ.get("PORT") or "8000", help="the API's (8000, or PORT)"
    )
    one.set_defaults(do=lambda given: run(given.var, given.port))

    one = commands.add_parser("services", help="only Postgres, Redis and libvirt, until Ctrl-C")
    one.set_defaults(do=lambda given: run_services(given.var))

    one = commands.add_parser(
        "enter",
        help="a command in the guests' network",
        description="Run a command where the guests' addresses exist: on the network of the private libvirt.",
        epilog="Example: python -m deploy.local enter -- ssh root@203.0.113.10",
    )
    one.add_argument("--libvirt", default="libvirt", metavar="NAME", help="which one, when there are several")
    one.add_argument("words", nargs="+", metavar="COMMAND", help="the command, after --")
    one.set_defaults(do=lambda given: enter(given.var, given.libvirt, given.words))

    one = commands.add_parser(
        "with-postgres",
        help="a command beside an empty private Postgres",
        description="Run a command with a private, empty Postgres in DATABASE_URL, which ends with it.",
        epilog="Example: python -m deploy.local with-postgres -- python manage.py migrate",
    )
    one.add_argument("words", nargs="+", metavar="COMMAND", help="the command, after --")
    one.set_defaults(do=lambda given: with_postgres(given.var / "scratch", given.words))

    one = commands.add_parser("clean", help="stop what still runs, and remove the folder with all data")
    one.set_defaults(do=lambda given: clean(given.var))
    return top


def port(text: str) -> int:
    """A TCP port that a program may choose; argparse makes the complaint of it."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} should be a number from 1 to 65535")
    return int(text)


def enter(var: Path, name: str, words: list[str]) -> None:
    ask_for_root("The guests' network is root's:")
    command = Libvirtd(var, name).enter(*words)
    os.execvp(command[0], command)  # noqa: S606 (its exit code and terminal become ours)


def with_postgres(var: Path, words: list[str]) -> int:
    """Run the command and return its exit status."""
    with claimed(var):
        postgres = Postgres(var, durable=False)
        shutil.rmtree(postgres.folder, ignore_errors=True)
        try:
            postgres.start()
            return subprocess.run(words, env=os.environ | {"DATABASE_URL": postgres.url}).returncode
        finally:
            postgres.stop()


if __name__ == "__main__":
    sys.exit(main())
