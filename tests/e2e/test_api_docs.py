"""docs/api.md, from top to bottom: each sample is run as it is written, and answers as the page shows."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy.local.folder import PROJECT
from deploy.local.guest import GuestImage
from tests.e2e.conftest import Product, start, stop

# What differs from run to run; all else is as the page shows it.
VARIES = {
    *("uuid", "prefix", "fingerprint", "public_key", "secret", "event_id", "url"),
    *("created_at", "updated_at", "last_used_at", "started_at", "finished_at", "due_at", "hour", "month"),
    *("charged_from", "charged_until", "runs_out_at", "step", "progress"),
    *("cpu_percent", "memory_used", "disk_used", "bandwidth_used"),
    *("attempts", "response_status", "error", "duration_ms"),
    *("balance", "total", "hours", "usage", "backups"),  # how often the meter has come by
}
UNTIL_THE_METER_COMES = {".count": 0, ".results": [], ".months": []}
SHELL = """
curl() {
    command curl --silent --show-error --dump-header "$ANSWERS/$SAMPLE.$(date +%s%N)" "$@"
}
"""


class Sample(NamedTuple):
    """A block of commands, with what the page shows below it."""

    code: str
    headers: dict[str, str]
    answer: Any


def samples() -> Iterator[Sample]:
    page = (PROJECT / "docs" / "api.md").read_text().partition("## The provider's own clients")[0]
    for code, shown in re.findall(r"```sh\n(.*?)```\n((?:```(?:json)?\n.*?```\n)*)", page, re.DOTALL):
        answers = re.findall(r"```json\n(.*?)```", shown, re.DOTALL)
        headers = re.findall(r"^([A-Z][\w-]+): (.*)$", shown, re.MULTILINE)
        yield Sample(code, dict(headers), json.loads(answers[-1]) if answers else None)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, guest_image: Path) -> Iterator[Product]:
    """A first ``make run``, spared the building of the guest's image."""
    var = tmp_path_factory.mktemp("v")
    image = GuestImage(var).path
    image.parent.mkdir()
    shutil.copy(guest_image, image)
    (var / "lock").touch()
    product = start(var)
    yield product
    assert stop(product) == 0


@pytest.mark.timeout(1200)
def test_the_page_can_be_followed_from_top_to_bottom(fresh: Product, tmp_path: Path) -> None:
    """F48: it was out of order, and never taught how to wait."""
    (tmp_path / "var").symlink_to(fresh.var)
    (tmp_path / ".ssh").mkdir()
    key = [*("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@laptop"), "-f", ".ssh/id_ed25519"]
    subprocess.run(key, check=True, cwd=tmp_path)
    page = list(samples())
    outputs, statuses, headers = run([sample.code for sample in page], tmp_path)

    wrong = []
    for number, sample in enumerate(page):
        told = f"sample {number}:\n{sample.code}\nsaid: {outputs[number]}"
        expected = [
            int(status) for status in re.findall(r"^[^#]*curl.*?# (20[14])", joined(sample.code), re.M)
        ]
        assert [status for status in statuses[number] if status != 200] == expected, told
        if sample.answer is not None:
            found = differences(sample.answer, last_answer(outputs[number]))
            wrong += [f"sample {number}: {line}" for line in found]
        for name, shown in sample.headers.items():
            value = shown.replace("http://127.0.0.1:8000/api/v1", fresh.url)
            assert headers[number].get(name.lower()) == value, told
    assert not wrong, "\n".join(wrong)


def run(codes: list[str], home: Path) -> tuple[list[str], list[list[int]], list[dict[str, str]]]:
    """Run the samples in one shell.  Returns the output, the statuses and the last headers of each."""
    answers = home / "answers"
    answers.mkdir()
    script = [SHELL]
    for number, code in enumerate(codes):
        script += [f"SAMPLE={number}", "{", code, f'}} >"$ANSWERS/{number}" 2>&1']
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "ANSWERS": str(answers)}
    env["RECEIVER"] = "https://127.0.0.1:9443/"  # nobody listens there
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail"], input="\n".join(script), text=True, env=env, cwd=home
    )
    outputs = [
        (answers / str(number)).read_text()
        for number in range(len(codes))
        if (answers / str(number)).exists()
    ]
    assert done.returncode == 0, outputs[-1]
    heads = [
        [file.read_text() for file in sorted(answers.glob(f"{number}.*"))] for number in range(len(codes))
    ]
    statuses = [[int(head.split()[1]) for head in some] for some in heads]
    last = [
        {name.lower(): value for name, value in re.findall(r"^([\w-]+): (.*?)\r?$", some[-1], re.M)}
        if some
        else {}
        for some in heads
    ]
    return outputs, statuses, last


def joined(code: str) -> str:
    """Each command on a line of its own."""
    return code.replace("\\\n", " ").replace(",\n", ", ")


def last_answer(output: str) -> Any:
    """The last of the JSON values that were printed one after the other."""
    decoder, rest, value = json.JSONDecoder(), output.strip(), None
    while rest:
        value, end = decoder.raw_decode(rest)
        rest = rest[end:].lstrip()
    return value


def differences(shown: Any, got: Any, where: str = "") -> list[str]:
    """What the page shows and the answer does not have, or the other way round."""
    if where in UNTIL_THE_METER_COMES and got == UNTIL_THE_METER_COMES[where]:
        return []
    if isinstance(shown, dict) and isinstance(got, dict):
        if list(shown) != list(got):
            return [f"{where}: the page shows {list(shown)}, the answer has {list(got)}"]
        return [line for key in shown for line in differences(shown[key], got[key], f"{where}.{key}")]
    if isinstance(shown, list) and isinstance(got, list):
        if len(shown) != len(got):
            return [f"{where}: the page shows {len(shown)} of them, the answer has {len(got)}"]
        pairs = enumerate(zip(shown, got, strict=True))
        return [line for i, (one, other) in pairs for line in differences(one, other, f"{where}[{i}]")]
    if where == ".status" and {shown, got} <= {"running", "succeeded"}:
        return []  # an operation that was waited for
    if where == ".results[0].status" and {shown, got} <= {"pending", "failed"}:
        return []  # a delivery: whether the first attempt has been made yet
    name = where.rpartition(".")[2].partition("[")[0]
    if name in VARIES or shown == got:
        return []
    return [f"{where}: the page shows {shown!r}, the answer has {got!r}"]
