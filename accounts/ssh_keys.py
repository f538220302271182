"""Reads a public SSH key as OpenSSH writes it: ``type base64 comment``, one line, no options."""

import base64
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

MIN_RSA_BITS = 2048
MAX_LENGTH = 16_384


@dataclass(frozen=True)
class PublicKey:
    line: str  # what goes into authorized_keys
    fingerprint: str  # as ssh-keygen -l shows it: SHA256:...


def parse(text: str) -> PublicKey:
    """The key in a line.  Raises ValueError with a sentence that says what is wrong."""
    text = text.strip()
    if not text.isprintable() or len(text) > MAX_LENGTH:
        raise ValueError("Should be one line, as in ~/.ssh/id_ed25519.pub.")
    kind, _, rest = text.partition(" ")
    blob, _, comment = rest.strip().partition(" ")
    try:
        key = load_ssh_public_key(f"{kind} {blob}".encode())
        raw = base64.b64decode(blob, validate=True)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "This is no public SSH key. It should begin with its type, such as ssh-ed25519, without options."
        ) from None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise ValueError(f"An RSA key should have {MIN_RSA_BITS} bits or more; this has {key.key_size}.")
    digest = base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")
    return PublicKey(
        line=" ".join(filter(None, [kind, blob, comment.strip()])), fingerprint=f"SHA256:{digest}"
    )
