"""The content store: bytes too large for PostgreSQL, kept under the SHA-256 of their content.

Promises
    * What `Staged.commit` returned survives a power cut: file written, hashed, synced, renamed, folder synced. The
      local store of ``obstore`` renames without syncing, so it only reads and serves the remote stores here.
    * Memory is constant whatever the size; a size limit is always there and the refusal names it.
    * A reader sees the whole content or nothing. Two writers of the same content are harmless.
    * What a crash leaves is swept at the next opening; the file of a living writer is left alone.

Not promised: deletion of content that no row names (`gateway.exchange.pending` takes back what is refused), or what a
remote store leaves of a broken upload (give the bucket a rule for incomplete multipart uploads).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import itertools
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, from_url

from gateway.errors import Fault, GatewayError, InvalidContent, NotFound, Unavailable

__all__ = ["CHUNK_BYTES", "Blob", "BlobStore", "Staged", "open_store"]

CHUNK_BYTES = 1 << 20
"""How much a stream carries at a time."""

T = TypeVar("T")
Bytes = bytes | bytearray | memoryview

#: After so many bytes the disk may begin with what was written: less is left to wait for at the end.
_EARLY_BYTES = 128 << 10

#: Files that are open before there is anything to write, at most.
_FORESEEN = 16

_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LIMIT_BYTES = 4 << 30
_RETRY = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_CLIENT = {"connect_timeout": "5s", "timeout": "120s"}

# What the kernel says of a disk, and what it means for whoever asked. The rest is a broken deployment.
_PASSING = {
    errno.ENOSPC: "la place manque",
    errno.EDQUOT: "le quota est atteint",
    errno.EFBIG: "le disque ne prend pas un fichier de cette taille",
    errno.EMFILE: "trop de fichiers sont ouverts",
    errno.ENFILE: "trop de fichiers sont ouverts",
    errno.EIO: "le disque ne répond pas",
    errno.ESTALE: "le disque ne répond pas",
    errno.ETIMEDOUT: "le disque ne répond pas",
}


@dataclass(frozen=True, slots=True)
class Blob:
    """What is kept: the SHA-256 of the content, which is its key, and its size."""

    sha256: str
    size_bytes: int


class Staged:
    """Content on its way into the store; nothing is kept before `commit`.

    Leaving the ``with`` block without a commit throws the bytes away.
    """

    def __init__(self, store: BlobStore, limit_bytes: int) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._begun_bytes = 0
        self._path, self._file = store._taken_staging()  # noqa: SLF001 - the two halves of one class
        self._moved = False
        self._became: Blob | GatewayError | None = None

    @property
    def size_bytes(self) -> int:
        """How much was written so far."""
        return self._size_bytes

    @property
    def path(self) -> Path:
        """Where the bytes are until `commit`, for who must look at them first."""
        return Path(self._path)

    def write(self, content: Bytes) -> None:
        """Append bytes.

        Raises
        ------
        InvalidContent
            ``blob-too-large``, naming the limit; the staged content is then lost.
        Unavailable
            When the disk is full.
        """
        view = memoryview(content).cast("B")
        self._size_bytes += view.nbytes
        if self._size_bytes > self._limit_bytes:
            raise InvalidContent(
                "blob-too-large", f"Le contenu dépasse la taille permise ({self._limit_bytes} octets)."
            )
        with _local_errors():
            left = view
            while left.nbytes:
                left = left[self._file.write(left) or 0 :]
            if self._size_bytes - self._begun_bytes >= _EARLY_BYTES:
                # The kernel sends what is dirty there to the disk, and does not wait; of a range that it has begun
                # with before it would forget what is clean.
                os.posix_fadvise(
                    self._file.fileno(),
                    self._begun_bytes,
                    self._size_bytes - self._begun_bytes,
                    os.POSIX_FADV_DONTNEED,
                )
                self._begun_bytes = self._size_bytes
        self._hash.update(view)  # while the disk is at it

    def commit(self) -> Blob:
        """Keep the content durably and name it; returns after the last sync, or after the remote store's answer."""
        if self._became is None:
            self._store.commit_together([self])
        if isinstance(self._became, Blob):
            return self._became
        raise self._became or AssertionError("undecided")

    def _synced(self) -> Blob:
        with _local_errors():
            os.fsync(self._file.fileno())
        return Blob(self._hash.hexdigest(), self._size_bytes)

    def _tried(self, step: Callable[[], T]) -> T | None:
        """Take a step; what refuses it is what becomes of this content, and of no other."""
        try:
            return step()
        except GatewayError as error:
            self._became = error
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Throw away what is not kept; harmless when all is."""
        # The lock on the file, which tells a sweep that its writer lives, goes with the descriptor: unlink first.
        if not self._moved:
            with contextlib.suppress(FileNotFoundError):
                Path(self._path).unlink()
        self._file.close()


class BlobStore:
    """A content store at a URL.

    Parameters
    ----------
    url
        ``file:///…``, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://account/container/prefix``. Credentials
        and endpoints of the remote ones are read by ``obstore`` from their vendors' own variables (``AWS_…``,
        ``GOOGLE_…``, ``AZURE_…``).
    staging
        Where remote content is collected before it is sent; a local store stages inside itself, because a rename does
        not cross file systems.
    limit_bytes
        The largest content kept; `stage` may lower it.
    options
        Given to ``obstore`` for a remote store, over the variables.
    """

    def __init__(
        self, url: str, *, staging: Path | None = None, limit_bytes: int = _LIMIT_BYTES, **options: Any
    ) -> None:
        self.url = url
        self._limit_bytes = limit_bytes
        self._root: Path | None = None
        self._foreseen: list[tuple[str, io.FileIO]] = []
        self._durable = False  # whether the folders of contents are known to be there after a power cut
        parts = urlsplit(url)
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
                raise Fault("blob-url", "RCP_BLOB_URL : un chemin absolu est attendu après « file:// ».")
            self._root = Path(unquote(parts.path))
            staging = self._root / "staging"
        elif staging is None:
            raise Fault("blob-staging", "Un magasin distant demande un dossier local de préparation.")
        self._staging = staging
        self._writer, self._number = secrets.token_hex(16), itertools.count()
        with _local_errors():
            _make_folder(staging)
        with _remote_errors():
            self._remote: ObjectStore = (
                LocalStore(self._root)
                if self._root is not None
                else from_url(
                    url,
                    **{
                        "retry_config": _RETRY,
                        **options,
                        "client_options": {**_CLIENT, **options.get("client_options", {})},
                    },
                )
            )
        self._sweep()

    # Writing

    def stage(self, *, limit_bytes: int | None = None) -> Staged:
        """Begin to write content whose hash is not known yet."""
        return Staged(self, self._limit_bytes if limit_bytes is None else min(limit_bytes, self._limit_bytes))

    def foresee(self) -> None:
        """Open a file for what comes next, where there is time for it: a few at most."""
        if len(self._foreseen) < _FORESEEN:
            self._foreseen.append(self._open_staging())

    def commit_together(self, every: Sequence[Staged]) -> None:
        """Keep several contents as `Staged.commit` does, which then says at once what became of each.

        Their files are synced before one of them is named, and a folder once for all that were named in it.
        """
        # The two halves of one class, here and below.
        named: dict[str, list[tuple[Staged, Blob]]] = {}
        for one, blob in [(one, one._tried(one._synced)) for one in every]:  # noqa: SLF001
            if blob is None:
                continue
            folder = one._tried(partial(self._keep, one._path, blob))  # noqa: SLF001
            if folder is not None:
                one._moved = self._root is not None  # noqa: SLF001
                named.setdefault(folder, []).append((one, blob))
        for folder, inside in named.items():
            refusal: GatewayError | None = None
            try:
                if self._root is not None:
                    with _local_errors():
                        _sync_folder(folder)
            except GatewayError as error:
                refusal = error
            for one, blob in inside:
                one._became = refusal or blob  # noqa: SLF001

    def put(self, content: Bytes) -> Blob:
        """Keep bytes that are already in memory."""
        with self.stage() as staged:
            staged.write(content)
            return staged.commit()

    # Reading

    def size(self, key: str) -> int | None:
        """Give the size of a content in bytes, or `None` when it is not kept."""
        try:
            with _remote_errors():
                return int(obstore.head(self._remote, _place(key))["size"])
        except _Missing:
            return None

    def read(self, key: str, *, verify: bool = False) -> bytes:
        """Read a whole content.

        Raises
        ------
        NotFound
            ``blob-key`` when ``key`` is no SHA-256.
        Fault
            ``blob-missing`` when a key that was given out is gone, ``blob-corrupt`` when ``verify`` finds other bytes.
        Unavailable
            When the store does not answer.
        """
        with _remote_errors():
            content = bytes(obstore.get(self._remote, _place(key)).bytes())
        if verify and hashlib.sha256(content).hexdigest() != key:
            raise _corrupt()
        return content

    async def read_async(self, key: str) -> bytes:
        """Read a whole content without holding the event loop; errors as `read`."""
        with _remote_errors():
            result = await obstore.get_async(self._remote, _place(key))
            return bytes(await result.bytes_async())

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from ``start``, or as many as there are; errors as `read`."""
        if start < 0 or length < 0:
            raise Fault("blob-range", "Un intervalle de lecture ne peut être négatif.")
        with self.open(key) as file:
            file.seek(start)
            return file.read(length)

    def stream(self, key: str, *, verify: bool = False) -> Iterator[bytes]:
        """Read a content in pieces of about `CHUNK_BYTES`; errors as `read`, ``blob-corrupt`` after the last piece."""
        digest = hashlib.sha256()
        with _remote_errors():
            for piece in obstore.get(self._remote, _place(key)).stream(min_chunk_size=CHUNK_BYTES):
                if verify:
                    digest.update(piece)
                yield bytes(piece)
        if verify and digest.hexdigest() != key:
            raise _corrupt()

    async def stream_async(self, key: str) -> AsyncIterator[bytes]:
        """Read a content in pieces without holding the event loop; errors as `read`."""
        with _remote_errors():
            result = await obstore.get_async(self._remote, _place(key))
            async for piece in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(piece)

    def open(self, key: str) -> BinaryIO:
        """Open a content as a seekable file, to be closed by the caller; errors as `read`."""
        if self._root is not None:
            try:
                with _local_errors():
                    return (self._root / _place(key)).open("rb")
            except _Missing as error:
                raise error from None
        with _remote_errors():
            return cast("BinaryIO", io.BufferedReader(_Reader(obstore.open_reader(self._remote, _place(key)))))

    def path(self, key: str) -> Path | None:
        """Give the file of a content in a local store, for code that wants a path; `None` in a remote one."""
        place = _place(key)
        return None if self._root is None else self._root / place

    def verify(self, key: str) -> None:
        """Read a content through and compare; errors as `read`."""
        for _ in self.stream(key, verify=True):
            pass

    # Operation

    def check(self) -> None:
        """Write, read and delete a probe, for ``rcp-gateway check`` and readiness.

        Raises
        ------
        GatewayError
            What is wrong.
        """
        name = f"probe/{secrets.token_hex(8)}"
        with _bucket(), _remote_errors():
            obstore.put(self._remote, name, b"probe")
            try:
                answer = bytes(obstore.get(self._remote, name).bytes())
            finally:
                obstore.delete(self._remote, name)
        if answer != b"probe":
            raise Fault("blob-probe", "Le magasin de contenus rend autre chose que ce qui lui est confié.")

    def delete(self, key: str) -> None:
        """Forget a content; harmless when it is not there."""
        with contextlib.suppress(_Missing), _remote_errors():
            obstore.delete(self._remote, _place(key))

    # The writer's half

    def _taken_staging(self) -> tuple[str, io.FileIO]:
        try:
            return self._foreseen.pop()
        except IndexError:
            return self._open_staging()

    def _open_staging(self) -> tuple[str, io.FileIO]:
        """Open a new staging file under a lock that lasts as long as its writer."""
        with _local_errors():
            while True:
                path = f"{self._staging}/{self._writer}-{os.getpid()}-{next(self._number)}"
                file = io.FileIO(path, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o640))
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink:
                    return path, file
                file.close()  # swept between its creation and its lock

    def _keep(self, staged: str, blob: Blob) -> str:
        """Put a content in its place, and give the folder that is to be synced."""
        place = _place(blob.sha256)
        if self._root is None:
            # The same content again costs no transfer; another size under this key is a broken former upload.
            if self.size(blob.sha256) != blob.size_bytes:
                with _bucket(), _remote_errors():
                    obstore.put(self._remote, place, Path(staged))
            return ""
        # As texts: between senders that write together each path object is a tenth of what the interpreter does.
        folder, _, name = f"{self._root}/{place}".rpartition("/")
        with _local_errors():
            if not self._durable:
                self._make_folders(self._root)
            # Over what may be there: the same bytes, or a damaged copy that is healed.
            os.rename(staged, f"{folder}/{name}")  # noqa: PTH104 - as above
        return folder

    def _make_folders(self, root: Path) -> None:
        """Make all folders of contents at the first one: each for itself is three syncs that somebody waits for."""
        _make_folder(root / "sha256")
        for number in range(256):
            (root / "sha256" / f"{number:02x}").mkdir(mode=0o750, exist_ok=True)
        # Another process may have made them an instant ago without having synced them yet.
        _sync_folder(root / "sha256")
        _sync_folder(root)
        self._durable = True

    def _sweep(self) -> None:
        """Remove what writers that no longer live have left."""
        with _local_errors():
            for entry in list(self._staging.iterdir()):
                with contextlib.suppress(FileNotFoundError, BlockingIOError):
                    descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        # A writer that has just committed renamed it: then this name is gone, and the file stays.
                        entry.unlink()
                    finally:
                        os.close(descriptor)


def open_store(url: str, *, staging: Path | None = None, **options: Any) -> BlobStore:
    """Open the store of ``RCP_BLOB_URL``; ``staging`` is a folder of the data directory, for remote stores."""
    return BlobStore(url, staging=staging, **options)


class _Missing(Fault):
    """A content that was given out and is gone."""

    def __init__(self) -> None:
        super().__init__("blob-missing", "Un contenu conservé est introuvable.")


class _Reader(io.RawIOBase):
    """A remote content as Python's raw file."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._size_bytes = int(reader.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._reader.tell() >= self._size_bytes:
            return 0
        with _remote_errors():
            piece = bytes(self._reader.read(view.nbytes))
        view[: len(piece)] = piece
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()


def _place(key: str) -> str:
    """Say where a key lies: 256 folders keep each short; anything but a SHA-256 is refused before it is a path."""
    if _KEY.fullmatch(key) is None:
        raise NotFound("blob-key", "Ce contenu n’existe pas.")
    return f"sha256/{key[:2]}/{key}"


def _corrupt() -> Fault:
    return Fault("blob-corrupt", "Un contenu conservé n’est plus celui qui a été confié.")


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it that are missing, each durable in its parent."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o750, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: str | Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _local_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise _Missing from None
    except OSError as error:
        reason = _PASSING.get(error.errno or 0)
        if reason is not None:
            raise Unavailable("blob-disk", f"Le contenu ne peut être conservé : {reason}.", retry_after_s=60) from error
        raise Fault("blob-disk", "Le dossier des contenus est inutilisable.") from error


@contextlib.contextmanager
def _bucket() -> Iterator[None]:
    """Say what "not found" means of a write: the place itself is missing."""
    try:
        yield
    except _Missing:
        raise Fault("blob-bucket", "Le magasin de contenus désigné par RCP_BLOB_URL n’existe pas.") from None


@contextlib.contextmanager
def _remote_errors() -> Iterator[None]:
    try:
        yield
    except GatewayError:
        raise
    except (NotFoundError, FileNotFoundError):
        raise _Missing from None
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        raise Fault("blob-access", "Le magasin de contenus refuse l’accès de la passerelle.") from error
    except ValueError as error:
        raise Fault("blob-url", "RCP_BLOB_URL ou ses options ne sont pas utilisables.") from error
    except (BaseError, OSError) as error:
        raise Unavailable("blob-store", "Le magasin de contenus ne répond pas.", retry_after_s=30) from error
