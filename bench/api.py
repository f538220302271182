"""make bench-api: the cost of reading.  Starts everything, measures in turns, prints a table."""

import json
import statistics
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import ground
from deploy.local.errors import LocalError
from deploy.local.folder import PROJECT, claimed, var_folder
from deploy.local.postgres import Postgres
from deploy.local.processes import Process
from deploy.local.run import api_command

MANY, FEW = 200_000, 1_000
SMALL = "small"  # the database with the few
ROUNDS, SECONDS, CONNECTIONS = 11, 1, 4
PAGE = "?page=1&page_size=20"
WRK = ["wrk", "--threads", "1", "--script", str(Path(__file__).with_name("report.lua"))]


class Side(NamedTuple):
    """A running gunicorn and what it is asked with."""

    url: str
    token: str
    server: int


class Measured(NamedTuple):
    per_second: float
    p50: float
    p99: float


def main() -> None:
    var = var_folder() / "bench"
    with claimed(var), ExitStack() as running:
        postgres, env = running.enter_context(ground.services(var, durable=False))
        many, few = _databases(postgres, env)
        api = running.enter_context(_gunicorn("api", var, env, many))
        small = running.enter_context(_gunicorn("small", var, env | _database(postgres, SMALL), few))
        by_hand, bare = (
            running.enter_context(_gunicorn(module, var, env | {"DJANGO_SETTINGS_MODULE": module}, many))
            for module in ("bench.settings", "bench.settings_bare")
        )
        _compare(api, by_hand, bare)
        _grow(api, small)


def _compare(api: Side, by_hand: Side, bare: Side) -> None:
    print(f"{MANY:,} servers, 1,000 of them the account's; medians of {ROUNDS} turns of {SECONDS} s,")
    print(f"{CONNECTIONS} connections; a ratio is the median of the turns' ratios.\n")
    print(f"{'':27}{'req/s':>7}{'p50 ms':>9}{'p99 ms':>9}   API / by hand")
    for name, path in [
        ("list of 20", PAGE),
        ("list of 100 (no page asked)", ""),
        ("detail", f"{api.server}/"),
    ]:
        if len({_get(side, path).replace(side.url.encode(), b"") for side in (api, by_hand, bare)}) != 1:
            raise LocalError(f"{name}: they do not answer the same.")
        turns = _in_turns((api, path), (by_hand, path), (bare, path))
        _print(name, turns[0])
        for hand, others in zip(("  by hand", "  by hand, no middleware"), turns[1:], strict=True):
            _print(hand, others, _ratio(turns[0], others, "per_second"))


def _grow(api: Side, small: Side) -> None:
    many, few = _in_turns((api, PAGE), (small, PAGE), connections=1)  # one connection: no queue in the p50
    _print(f"list of 20 of {MANY:,}", many)
    _print(f"list of 20 of {FEW:,}", few, f"{_ratio(many, few, 'p50')} (p50 / p50)")


def _ratio(ours: list[Measured], theirs: list[Measured], what: str) -> str:
    pairs = zip(ours, theirs, strict=True)
    return f"{statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs):16.2f}"


def _print(name: str, turns: list[Measured], more: str = "") -> None:
    per_second, p50, p99 = (statistics.median(column) for column in zip(*turns, strict=True))
    print(f"{name:27}{per_second:7.0f}{p50:9.2f}{p99:9.2f}{more}", flush=True)


def _in_turns(*cases: tuple[Side, str], connections: int = CONNECTIONS) -> list[list[Measured]]:
    for side, path in cases:
        _wrk(side, path, connections)  # warm
    turns = [[_wrk(side, path, connections) for side, path in cases] for _ in range(ROUNDS)]
    return [list(column) for column in zip(*turns, strict=True)]


def _wrk(side: Side, path: str, connections: int) -> Measured:
    header = ["--header", f"Authorization: Bearer {side.token}"]
    command = [*WRK, "--connections", str(connections), "--duration", str(SECONDS), *header, side.url + path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    if told.pop("bad"):
        raise LocalError(f"{side.url}{path} did not always answer.\n{done.stdout}")
    return Measured(**told)


def _get(side: Side, path: str) -> bytes:
    request = urllib.request.Request(side.url + path, headers={"Authorization": f"Bearer {side.token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return bytes(answer.read())


def _databases(postgres: Postgres, env: dict[str, str]) -> tuple[tuple[str, int], tuple[str, int]]:
    """The two databases, filled anew: (token, server) of each."""
    for name in ("vps", SMALL):
        ground.make_empty(postgres, name)
    filled = []
    for name, servers in (("vps", MANY), (SMALL, FEW)):
        here = env | _database(postgres, name)
        ground.manage(here, ["migrate", "--no-input"], ["load_catalogue"])
        token, server = ground.python(here, "bench.rows", str(servers)).split()
        filled.append((token, int(server)))
    return filled[0], filled[1]


def _database(postgres: Postgres, name: str) -> dict[str, str]:
    return {"DATABASE_URL": f"{postgres.url.rpartition('/')[0]}/{name}"}


@contextmanager
def _gunicorn(name: str, var: Path, env: dict[str, str], of: tuple[str, int]) -> Iterator[Side]:
    port = ground.free_port()
    process = Process(name, var)
    side = Side(f"http://127.0.0.1:{port}/api/v1/servers/", *of)
    try:
        process.start(api_command(port), env=env, cwd=PROJECT)
        process.wait_until(lambda: _answers(side), 60)
        yield side
    finally:
        process.stop()


def _answers(side: Side) -> bool:
    try:
        return bool(_get(side, ""))
    except OSError:
        return False
