"""The store keeps objects in a directory or in a bucket, and says by name what is wrong with it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from backups.errors import NotStored, StoreFull, StoreUnreachable
from backups.store import S3Access, Store
from deploy.local.folder import PROJECT
from deploy.local.processes import as_root
from tests.s3 import S3, hanging_up, proxying, refusing, when
from tests.served import free_port

MIB = 1024 * 1024


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for three pieces."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(as_root("mount", "-t", "tmpfs", "-o", "size=14m,mode=777", "tmpfs", folder), check=True)
    yield folder
    subprocess.run(as_root("umount", "--lazy", folder), check=True)


def test_what_was_put_is_there_until_it_is_removed(store: Store) -> None:
    store.put("a/b/one", b"first")
    store.put("a/b/one", b"1")
    store.put("a/c/two", b"")

    assert bytes(store.get("a/b/one")) == b"1"
    assert {(found.path, found.size_bytes) for found in store.list("a")} == {("a/b/one", 1), ("a/c/two", 0)}
    assert [found.path for found in store.list("a/b")] == ["a/b/one"]
    assert list(store.list("nothing")) == []
    store.remove(["a/b/one", "a/b/never"])
    store.remove(["a/b/one"])
    store.remove([])
    with pytest.raises(NotStored):
        store.get("a/b/one")
    assert [found.path for found in store.list("a")] == ["a/c/two"]


def test_more_than_a_thousand_objects_are_listed_and_removed(store: Store) -> None:
    """S3 lists and removes at most a thousand in one request."""
    paths = [f"many/{number}" for number in range(1100)]
    for path in paths:
        store.put(path, b"x")

    assert {found.path for found in store.list("many")} == set(paths)
    store.remove(paths)
    assert list(store.list("many")) == []


def test_the_store_dates_objects_by_one_clock(store: Store) -> None:
    before = store.now()
    store.put("a/b", b"x")
    [found] = store.list("a")

    assert before <= found.modified_at <= store.now()


def test_a_full_directory_says_so(small_folder: Path) -> None:
    store = Store(str(small_folder))

    def fill() -> None:
        for number in range(8):
            store.put(f"a/{number}", os.urandom(4 * MIB))

    with pytest.raises(StoreFull, match="is full"):
        fill()

    assert len(store.get("a/0")) == 4 * MIB
    assert all(found.size_bytes == 4 * MIB for found in store.list("a"))


@pytest.mark.parametrize(
    ("status", "code"), [(507, "InsufficientStorage"), (403, "QuotaExceeded"), (507, "XMinioStorageFull")]
)
def test_a_full_bucket_says_so(s3: S3, status: int, code: str) -> None:
    with proxying(s3) as proxy:
        store = proxy.new_store()
        proxy.fault = when(lambda request: request.command == "PUT", refusing(status, code))
        with pytest.raises(StoreFull, match=code):
            store.put("a", b"x")


def test_a_directory_that_is_gone_is_unreachable_and_not_empty(tmp_path: Path) -> None:
    """Guard: ``_on_a_folder``.  What an unmounted disk leaves would be taken for a store without pieces."""
    store = Store(str(tmp_path / "store"))
    (tmp_path / "store").rmdir()

    with pytest.raises(StoreUnreachable):
        store.get("a")
    with pytest.raises(StoreUnreachable):
        list(store.list("a"))
    with pytest.raises(StoreUnreachable):
        store.put("a", b"x")
    assert not (tmp_path / "store").exists()


def test_a_bucket_that_is_gone_is_unreachable_and_not_empty(s3: S3) -> None:
    """Guard: ``NoSuchBucket`` in ``_told``.  S3 answers 404 to both."""
    store = Store("s3://no-such-bucket/prefix", s3.access)

    with pytest.raises(StoreUnreachable):
        store.get("a")
    with pytest.raises(StoreUnreachable):
        list(store.list("a"))
    with pytest.raises(StoreUnreachable):
        store.put("a", b"x")


def test_a_server_that_nobody_runs_is_unreachable() -> None:
    access = S3Access(f"http://127.0.0.1:{free_port()}", "us-east-1", "an id", "a secret")

    with pytest.raises(StoreUnreachable, match="s3://bucket"):
        Store("s3://bucket", access).get("a")


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnreachable, match="cannot be a store"):
        Store(str(tmp_path / "file"))


def test_a_secret_is_in_no_error(s3: S3) -> None:
    with proxying(s3) as proxy:
        store = proxy.new_store()
        proxy.fault = refusing(403, "InvalidAccessKeyId")
        with pytest.raises(StoreUnreachable, match="InvalidAccessKeyId") as refusal:
            store.get("a")
    assert "a secret" not in str(refusal.value)


def test_a_directory_that_hangs_is_given_up(tmp_path: Path) -> None:
    """Guard: ``_within``.  A pipe that nobody writes into hangs as a file of a dead NFS server does."""
    store = Store(str(tmp_path), limit_s=1)
    os.mkfifo(tmp_path / "hung")
    try:
        with pytest.raises(StoreUnreachable, match="did not answer within 1 s"):
            store.get("hung")
        store.put("a", b"the others work on")
    finally:
        os.close(os.open(tmp_path / "hung", os.O_RDWR | os.O_NONBLOCK))


def test_a_server_that_hangs_is_given_up(s3: S3) -> None:
    released = threading.Event()
    with proxying(s3) as proxy:
        store = proxy.new_store(limit_s=1)
        proxy.fault = lambda request: released.wait(60) and hanging_up(request)
        with pytest.raises(StoreUnreachable, match="did not answer within 1 s"):
            store.get("a")
        released.set()


@pytest.mark.parametrize("fault", [refusing(500, "InternalError"), refusing(503, "SlowDown"), hanging_up])
def test_a_failure_that_passes_is_not_seen(s3: S3, fault: object) -> None:
    """Guard: RETRIES."""
    left = [2]

    def twice(request: object) -> bool:
        left[0] -= 1
        return left[0] >= 0

    with proxying(s3) as proxy:
        store = proxy.new_store()
        store.put("a", b"x")
        proxy.fault = when(twice, fault)  # type: ignore[arg-type]
        assert bytes(store.get("a")) == b"x"
    assert left[0] < 0


FORK = """
import os, signal, sys
from backups.store import Store

store = Store(sys.argv[1])
store.put("a", b"x")
if os.fork() == 0:
    signal.alarm(20)
    store.get("a")
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_process_forked_from_one_that_uses_a_store_is_told_so_and_does_not_hang(tmp_path: Path) -> None:
    """Guard: ``_refuse_fork``.  The library's threads are not in the new process."""
    ended = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True
    )

    assert ended.returncode == 1
    assert "RuntimeError: The process that this one was forked from has used a store" in ended.stderr


def test_what_a_dead_writer_left_of_an_object_is_no_object_and_goes(tmp_path: Path) -> None:
    """Guard: ``remove_leftovers``."""
    store = Store(str(tmp_path))
    store.put("a/b", b"x")
    old, young = tmp_path / "a" / "c#1", tmp_path / "a" / "d#12"
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)

    assert [found.path for found in store.list("a")] == ["a/b"]
    store.remove_leftovers("a", store.now() - timedelta(days=1))
    assert sorted(os.listdir(tmp_path / "a")) == ["b", "d#12"]
