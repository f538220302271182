"""The store: objects by path, in a directory or in a bucket that speaks S3's protocol.

It knows nothing of what it holds.  Each call has a time limit, raises errors of ``backups.errors`` only, and
may be repeated.  An object is there whole or not at all.  In a directory an object that was put is on the
disk, not only in memory: a power cut loses none.

The library runs threads that do not survive a fork: a process forked from one that has used a store hangs in
its first call.  Such a call raises RuntimeError instead.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.store import LocalStore, S3Store

from backups.errors import BackupError, NotStored, StoreFull, StoreUnreachable

if TYPE_CHECKING:
    from obstore.store import ClientConfig

T = TypeVar("T")

CALL_LIMIT_S = 120.0
REQUEST_LIMIT = timedelta(seconds=60)  # 4 MiB at 1 MiB/s, several at once, fit in
CONNECT_LIMIT = timedelta(seconds=5)
RETRIES = 3
CLOCK = "clock"
# What directories and S3's many relatives say when there is no room.
FULL = (
    *(f"os error {errno.ENOSPC}", f"os error {errno.EDQUOT}"),
    *("QuotaExceeded", "StorageFull", "InsufficientStorage", "507 Insufficient Storage"),
)

_used_by: int | None = None


class S3Access(NamedTuple):
    """How to reach a bucket.  What is empty comes from the usual variables, such as AWS_ACCESS_KEY_ID."""

    endpoint: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""


class Stored(NamedTuple):
    path: str
    size_bytes: int
    modified_at: datetime  # by the store's own clock


class Store:
    """One store, by its address.  Threads may share it."""

    def __init__(
        self, address: str, access: S3Access | None = None, *, limit_s: float = CALL_LIMIT_S
    ) -> None:
        """``address`` is a directory, which is made if it is missing, or ``s3://bucket/prefix``.

        Raises StoreUnreachable if it cannot be one.
        """
        self.address = address
        self._limit_s = limit_s
        self._folder = None if address.startswith("s3://") else Path(address)
        try:
            self._objects = _opened(address, access or S3Access())
        except Exception as error:  # the library has no common class for what it finds wrong in settings
            raise StoreUnreachable(f"{address} cannot be a store: {_sentence(error)}") from None

    def put(self, path: str, data: bytes | bytearray) -> None:
        """Store an object, in place of an older one at this path.  Raises StoreFull, StoreUnreachable."""
        self._call(lambda: self._put(path, data))

    def get(self, path: str) -> memoryview:
        """Read an object.  Raises NotStored, StoreUnreachable."""
        return self._call(lambda: memoryview(obstore.get(self._objects, path).bytes()))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        if self._folder:
            for path in paths:
                with suppress(NotStored):
                    self._call(lambda path=path: obstore.delete(self._objects, path))  # type: ignore[misc]
        elif listed := list(paths):
            self._call(lambda: obstore.delete(self._objects, listed))

    def list(self, prefix: str) -> Iterator[Stored]:
        """All objects below a path, in no order.  None if there is no such path."""
        chunks = self._call(lambda: obstore.list(self._objects, prefix))
        while chunk := self._call(lambda: next(chunks, None)):
            for found in chunk:
                yield Stored(found["path"], found["size"], found["last_modified"])

    def now(self) -> datetime:
        """The time by the store's own clock, with which it dates objects; other machines' may differ."""
        self.put(CLOCK, b"")
        return self._call(lambda: obstore.head(self._objects, CLOCK)["last_modified"])

    def remove_leftovers(self, prefix: str, before: datetime) -> None:
        """Remove parts of objects that were being put when their writer died; only a directory has any."""
        if not self._folder:
            return
        # The library writes an object as "name#1" and renames it; it does not list such files.
        for part in (self._folder / prefix).rglob("*#*"):
            with suppress(FileNotFoundError):
                if part.stat().st_mtime < before.timestamp():
                    part.unlink()

    def _put(self, path: str, data: bytes | bytearray) -> None:
        # In one request: parts of an upload that broke off would stay in a bucket, unseen and paid for.
        obstore.put(self._objects, path, data, use_multipart=False)
        if self._folder:
            _to_disk(self._folder / path)
            _to_disk((self._folder / path).parent)

    def _call(self, call: Callable[[], T]) -> T:
        _refuse_fork()
        try:
            return _within(self._limit_s, lambda: self._on_a_folder(call))
        except BackupError:
            raise
        except Exception as error:  # several kinds, some of them Python's own
            raise self._told(error) from error

    def _on_a_folder(self, call: Callable[[], T]) -> T:
        # Below a mount that is gone everything is "not found", and a put would fill another disk.
        if self._folder and not self._folder.is_dir():
            raise StoreUnreachable(f"The store {self.address} is not there.")
        return call()

    def _told(self, error: Exception) -> BackupError:
        sentence = _sentence(error)
        if isinstance(error, TimeoutError):
            return StoreUnreachable(f"The store {self.address} did not answer within {self._limit_s:.0f} s.")
        if any(word in sentence for word in FULL) or getattr(error, "errno", None) in (
            errno.ENOSPC,
            errno.EDQUOT,
        ):
            return StoreFull(f"The store {self.address} is full: {sentence}")
        if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in sentence:
            return NotStored(sentence)
        return StoreUnreachable(f"The store {self.address} failed: {sentence}")


def _opened(address: str, access: S3Access) -> Any:
    if not address.startswith("s3://"):
        return LocalStore(address, mkdir=True)
    parts = urlsplit(address)
    plain_http: ClientConfig = {"allow_http": True} if access.endpoint.startswith("http://") else {}
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        config={name: value for name, value in access._asdict().items() if value},  # type: ignore[arg-type]
        client_options={"timeout": REQUEST_LIMIT, "connect_timeout": CONNECT_LIMIT, **plain_http},
        retry_config={"max_retries": RETRIES, "retry_timeout": REQUEST_LIMIT},
    )


def _within(limit_s: float, call: Callable[[], T]) -> T:
    """Call in a thread of its own.  Raises TimeoutError when it takes longer; the thread is then left alone.

    Nothing else ends a read from a network file system that hangs.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # for the caller to see
            answer.set_exception(error)

    Thread(target=run, name="backup store", daemon=True).start()
    return answer.result(limit_s)


def _refuse_fork() -> None:
    global _used_by
    _used_by = _used_by or os.getpid()
    if _used_by != os.getpid():
        raise RuntimeError(
            "The process that this one was forked from has used a store: use it after the fork."
        )


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sentence(error: Exception) -> str:
    """What the library says, without its own data structures."""
    return " ".join(str(error).partition("\n\nDebug source")[0].split())[:500]
