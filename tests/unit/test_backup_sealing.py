"""What is sealed opens with its key and label only, and only as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups.errors import Damaged
from backups.pieces import compress, name_of, pack, unpack
from backups.sealing import Subkeys, new_key, seal, subkeys_of, unseal

KEY = b"k" * 32
ALICE, BOB = subkeys_of(b"a" * 32), subkeys_of(b"b" * 32)
NAMES = "50f7eb00cbd780a762d3d14218dbfe91eb87bae8fa13311b39dc665afc576fd5"
NAME = "a719080aa59e5076d5e649971e990c762e9358c935e027d3d536b5bb7ffdc30f"
PLAIN = b"what is on a disk" * 1000


@given(st.binary(max_size=300), st.binary(max_size=30))
def test_what_is_sealed_opens(plain: bytes, label: bytes) -> None:
    sealed = seal(KEY, plain, label)

    assert unseal(KEY, sealed, label) == plain
    assert seal(KEY, plain, label) != sealed


@given(st.integers(0, 50), st.integers(1, 255))
def test_a_changed_byte_is_found(place: int, change: int) -> None:
    sealed = seal(KEY, b"x" * 22, b"label")
    sealed[place] ^= change

    with pytest.raises(Damaged):
        unseal(KEY, sealed, b"label")


@pytest.mark.parametrize("length", range(60))
def test_what_is_cut_off_is_found(length: int) -> None:
    sealed = seal(KEY, b"x" * 31, b"label")

    with pytest.raises(Damaged):
        unseal(KEY, sealed[:length], b"label")


def test_another_label_or_key_does_not_open() -> None:
    """Guards: the label and the key of AES-GCM."""
    sealed = seal(KEY, b"x", b"label")

    with pytest.raises(Damaged):
        unseal(KEY, sealed, b"another")
    with pytest.raises(Damaged):
        unseal(new_key(), sealed, b"label")


def test_each_purpose_has_a_key_of_its_own_and_each_account_others() -> None:
    assert len({*ALICE, *BOB}) == 2 * len(Subkeys._fields)
    assert subkeys_of(b"a" * 32) == ALICE


def test_the_derived_keys_stay_as_they_are() -> None:
    """When this fails, no backup that was made before can be read."""
    assert subkeys_of(bytes(32)).names.hex() == NAMES
    name = name_of(subkeys_of(bytes(32)), b"a piece")
    assert name is not None
    assert name.hex() == NAME


def test_equal_bytes_have_one_name_in_an_account_and_another_in_the_next() -> None:
    """Guard: the key of the name.  With one name for all, an account could learn what another has."""
    assert name_of(ALICE, PLAIN) == name_of(ALICE, bytes(bytearray(PLAIN)))
    assert name_of(ALICE, PLAIN) != name_of(BOB, PLAIN)
    assert name_of(ALICE, PLAIN) != name_of(ALICE, PLAIN[1:])


@pytest.mark.parametrize("length", [0, 1, 511, 4 * 1024 * 1024 - 1, 4 * 1024 * 1024])
def test_zeros_have_no_name(length: int) -> None:
    assert name_of(ALICE, bytes(length)) is None
    assert name_of(ALICE, bytes(length) + b"\1") is not None


def test_a_piece_comes_back_and_is_smaller_meanwhile() -> None:
    name = name_of(ALICE, PLAIN) or b""
    packed = pack(ALICE, name, compress(PLAIN))

    assert unpack(ALICE, name, packed) == PLAIN
    assert len(packed) < len(PLAIN) / 10


def test_a_piece_under_another_name_or_key_is_found() -> None:
    name, other = (name_of(ALICE, plain) or b"" for plain in (PLAIN, b"another"))
    packed = pack(ALICE, name, compress(PLAIN))

    with pytest.raises(Damaged, match="does not decrypt"):
        unpack(ALICE, other, packed)
    with pytest.raises(Damaged, match="does not decrypt"):
        unpack(BOB, name, packed)
    # Packed by a program with a fault of its own:
    with pytest.raises(Damaged, match="has other bytes than its name says"):
        unpack(ALICE, other, pack(ALICE, other, compress(PLAIN)))
    with pytest.raises(Damaged, match="does not decompress"):
        unpack(ALICE, name, seal(ALICE.pieces, b"no zstandard", name))
