"""The command line:  python -m bench --help.  VPS_VAR names the folder, as for make run."""

import argparse
import sys

from bench import api, backup, billing, provision
from deploy.local.errors import LocalError


def main() -> None:
    top = argparse.ArgumentParser(prog="python -m bench")
    what = top.add_subparsers(required=True, metavar="WHAT")

    one = what.add_parser("api", help="what reading costs; make bench-api")
    one.set_defaults(do=lambda given: api.main())

    one = what.add_parser("provision", help="what making servers costs; make bench-provision")
    one.add_argument("--turns", type=int, default=11, help="of each way to make one machine (11)")
    one.add_argument("--servers", type=int, default=100, help="in a burst (100)")
    one.add_argument("--machines", type=int, default=40, help="in a burst on QEMU, which takes long (40)")
    one.add_argument("--watched", type=int, default=300, help="machines on one host to be reconciled (300)")
    one.set_defaults(
        do=lambda given: provision.main(given.turns, given.servers, given.machines, given.watched)
    )

    one = what.add_parser("backup", help="what copying disks costs; make bench-backup")
    one.add_argument("--turns", type=int, default=3, help="of each way to copy and to restore a disk (3)")
    one.add_argument("--mib", type=int, default=1024, help="of content on the disk (1024)")
    one.set_defaults(do=lambda given: backup.main(given.turns, given.mib))

    one = what.add_parser("billing", help="what charging servers costs; make bench-billing")
    one.add_argument("--servers", type=int, default=20_000, help="that are charged (20000)")
    one.add_argument("--accounts", type=int, default=2_000, help="that have them (2000)")
    one.set_defaults(do=lambda given: billing.main(given.servers, given.accounts))

    given = top.parse_args()
    try:
        given.do(given)
    except LocalError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
