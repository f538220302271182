"""SSH keys: read for real, kept once, never more than one line."""

import base64
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from accounts.models import SshKey
from servers.models import Server
from tests.api.contract import is_refusal, is_validation_error
from tests.conftest import Customer


def made(folder: Path, *kind: str, comment: str = "me@laptop") -> tuple[str, str]:
    """A public key as ssh-keygen writes it, and the fingerprint that it shows."""
    path = folder / "-".join(kind)
    subprocess.run(["ssh-keygen", "-q", "-t", *kind, "-N", "", "-C", comment, "-f", path], check=True)
    shown = subprocess.check_output(["ssh-keygen", "-l", "-f", path], text=True).split()
    return path.with_suffix(".pub").read_text(), shown[1]


@pytest.fixture
def line(tmp_path: Path) -> str:
    return made(tmp_path, "ed25519")[0].strip()


@pytest.mark.parametrize("kind", [("ed25519",), ("rsa", "-b", "2048"), ("ecdsa", "-b", "256")], ids=" ".join)
def test_a_key_has_the_fingerprint_that_ssh_keygen_shows(
    alice: Customer, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    text, fingerprint = made(tmp_path, *kind)

    answer = alice.post("/ssh-keys/", {"name": "laptop", "public_key": text})

    assert answer.status_code == 201
    assert (answer.json()["fingerprint"], answer.json()["public_key"]) == (fingerprint, text.strip())
    assert alice.get(f"/ssh-keys/{answer.json()['uuid']}/").json() == answer.json()


@pytest.mark.parametrize(
    "spoil",
    {
        "nothing": lambda line: "",
        "only a type": lambda line: "ssh-ed25519",
        "options": lambda line: f'command="reboot" {line}',
        "two keys": lambda line: f"{line}\n{line}",
        "a line break in the comment": lambda line: f"{line}\nssh-rsa AAAA",
        "a carriage return": lambda line: f"{line}\rx",
        "a NUL": lambda line: f"{line}\0",
        "a null byte's cousin": lambda line: f"{line}\x85x",
        "another type than inside": lambda line: line.replace("ssh-ed25519", "ssh-rsa"),
        "cut off": lambda line: line[:40],
        "no base64": lambda line: line.replace("AAAA", "!!!!"),
        "a private key": lambda line: "-----BEGIN OPENSSH PRIVATE KEY-----",
        "far too long": lambda line: f"{line} {'x' * 20_000}",
        "a certificate's type": lambda line: line.replace("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_no_key_is_refused(alice: Customer, line: str, spoil: Any) -> None:
    answer = alice.post("/ssh-keys/", {"name": "laptop", "public_key": spoil[1](line)})

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "public_key")
    assert not SshKey.objects.exists()


@pytest.mark.parametrize("separator", [" ", "\t", "  \t "])
@pytest.mark.parametrize("comment", ["", "me@laptop", "my\u00a0laptop", "Zoë's key", "a b  c"])
def test_a_line_is_read_as_openssh_reads_it(alice: Customer, line: str, separator: str, comment: str) -> None:
    kind, blob = line.split()[:2]
    answer = alice.post("/ssh-keys/", {"name": "k", "public_key": separator.join([kind, blob, comment])})

    assert answer.status_code == 201
    assert answer.json()["public_key"] == " ".join(filter(None, [kind, blob, comment]))


def test_a_key_on_a_security_key_is_taken(alice: Customer) -> None:
    parts = [b"sk-ssh-ed25519@openssh.com", bytes(range(32)), b"ssh:"]
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    line = f"sk-ssh-ed25519@openssh.com {base64.b64encode(blob).decode()}"

    assert alice.post("/ssh-keys/", {"name": "token", "public_key": line}).status_code == 201


def test_a_certificate_is_no_key(alice: Customer, tmp_path: Path) -> None:
    made(tmp_path, "ed25519")
    ca, key = str(tmp_path / "ed25519"), str(tmp_path / "ed25519.pub")
    subprocess.run(["ssh-keygen", "-q", "-s", ca, "-I", "me", "-n", "root", key], check=True)
    certificate = (tmp_path / "ed25519-cert.pub").read_text()
    answer = alice.post("/ssh-keys/", {"name": "c", "public_key": certificate})

    assert answer.status_code == 400
    assert is_validation_error(answer.json(), "public_key")


def rsa(bits: int) -> str:
    """A key of this length; nobody has its private half."""
    modulus = ((1 << (bits - 1)) | 1).to_bytes(bits // 8 + 1, "big")
    parts = [b"ssh-rsa", b"\x01\x00\x01", modulus]
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"ssh-rsa {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize("bits", [16_392, 32_768])
def test_a_key_too_long_for_openssh_is_refused(alice: Customer, bits: int) -> None:
    answer = alice.post("/ssh-keys/", {"name": "long", "public_key": rsa(bits)})

    assert answer.status_code == 400
    assert f"this one has {bits}" in answer.json()["public_key"][0]
    assert alice.post("/ssh-keys/", {"name": "longest", "public_key": rsa(16_384)}).status_code == 201


def test_a_key_of_a_forgotten_kind_is_refused_with_the_kinds_that_are_taken(alice: Customer) -> None:
    dsa = "ssh-dss " + base64.b64encode(b"\0\0\0\x07ssh-dss").decode()
    answer = alice.post("/ssh-keys/", {"name": "old", "public_key": dsa})

    assert answer.status_code == 400
    assert "ssh-ed25519" in answer.json()["public_key"][0]


def test_a_key_too_short_to_be_safe_is_refused(alice: Customer) -> None:
    parts = [b"ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xc1" + b"\x01" * 127]
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    weak = f"ssh-rsa {base64.b64encode(blob).decode()}"

    answer = alice.post("/ssh-keys/", {"name": "old", "public_key": weak})

    assert answer.status_code == 400
    assert "2048" in answer.json()["public_key"][0]


def test_the_same_key_is_kept_once_in_an_account_and_may_be_in_another(
    alice: Customer, customer: Any, line: str
) -> None:
    assert alice.post("/ssh-keys/", {"name": "laptop", "public_key": line}).status_code == 201

    again = alice.post("/ssh-keys/", {"name": "other", "public_key": f"{line}-again"})

    assert again.status_code == 400
    assert again.json()["code"] == "duplicate_ssh_key"
    assert list(again.json()) == ["detail", "code", "public_key"]
    assert customer().post("/ssh-keys/", {"name": "laptop", "public_key": line}).status_code == 201


def test_a_key_that_a_server_got_may_be_deleted_and_the_server_keeps_it(
    alice: Customer, shop: dict[str, Any], line: str
) -> None:
    key = alice.post("/ssh-keys/", {"name": "laptop", "public_key": line}).json()
    assert key["last_used_at"] is None

    assert alice.post("/servers/", shop | {"ssh_key_id": key["id"]}).status_code == 201

    assert alice.get(f"/ssh-keys/{key['id']}/").json()["last_used_at"] is not None
    assert alice.delete(f"/ssh-keys/{key['id']}/").status_code == 204
    assert is_refusal(alice.get(f"/ssh-keys/{key['id']}/").json(), "not_found")
    assert Server.objects.get().authorized_keys == [line]
