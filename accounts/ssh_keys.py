"""Reads a public SSH key as OpenSSH writes it: ``type base64 comment``, one line, no options.

Takes exactly the keys that today's sshd lets a user log in with: no certificates, no DSA, and no RSA key that
is too short to be safe or too long for OpenSSH to read.
"""

import base64
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 16_384
MAX_LENGTH = 16_384
# OpenSSH separates the fields by spaces and tabs; a comment is any text without control characters.
LINE = re.compile(
    r"(?P<kind>\S+)[ \t]+(?P<blob>[A-Za-z0-9+/]+=*)(?:[ \t]+(?P<comment>[^\x00-\x1f\x7f-\x9f\u2028\u2029]*))?"
)


@dataclass(frozen=True)
class PublicKey:
    line: str  # the line for authorized_keys
    fingerprint: str  # as ssh-keygen -l shows it: SHA256:...


def parse(text: str) -> PublicKey:
    """The key in a line.  Raises ValueError with a sentence that says what the line should be."""
    text = text.strip(" \t\r\n")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"Should have at most {MAX_LENGTH} characters.")
    if "\n" in text or "\r" in text:
        raise ValueError("Should be one line, as in ~/.ssh/id_ed25519.pub.")
    line = LINE.fullmatch(text)
    if line is None:
        raise ValueError("Should be a public SSH key: its type, such as ssh-ed25519, then its base64 text.")
    kind, blob, comment = line["kind"], line["blob"], (line["comment"] or "").strip()
    if kind not in TYPES:
        raise ValueError(f"Should have one of the types {', '.join(TYPES)}, without options.")
    raw = _decoded(kind, blob)
    digest = base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")
    return PublicKey(line=" ".join(filter(None, [kind, blob, comment])), fingerprint=f"SHA256:{digest}")


def _decoded(kind: str, blob: str) -> bytes:
    try:
        raw = base64.b64decode(blob, validate=True)
        key = load_ssh_public_key(f"{kind} {blob}".encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "Should be a public SSH key; its base64 text is damaged, or of another type."
        ) from None
    if isinstance(key, RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise ValueError(
            f"An RSA key should have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits; this one has {key.key_size}."
        )
    return raw
