"""A DICOM port over a folder: the real wire, and storage small enough to be watched and broken at will."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.dicom.command import Answer, StoreRequest, part10_head
from gateway.dicom.scp import Scp
from gateway.dicom.wire import Limits
from gateway.errors import UnknownIdentity
from gateway.transport import Address


@dataclass
class Folder:
    """Storage that keeps files, remembers requests, and can be told to fail."""

    root: Path
    requests: list[tuple[StoreRequest, str]] = field(default_factory=list)
    fail_open: Exception | None = None
    fail_write: Exception | None = None
    fail_commit: Exception | None = None
    gate: threading.Event | None = None
    device: int | None = None

    def open(self, request: StoreRequest, peer: str) -> "File":
        self.requests.append((request, peer))
        if self.fail_open:
            raise self.fail_open
        return File(self, request)

    @property
    def kept(self) -> set[str]:
        return {path.name for path in self.root.iterdir() if path.suffix != ".part"}

    @property
    def partial(self) -> int:
        return len(list(self.root.glob("*.part")))

    def data_set(self, name: str) -> bytes:
        """Bytes after the File Meta Information, found by its group length element."""
        whole = (self.root / name).read_bytes()
        return whole[144 + int.from_bytes(whole[140:144], "little") :]


class File:
    def __init__(self, folder: Folder, request: StoreRequest):
        self.folder, self.path = folder, folder.root / f"{request.sop_instance_uid}.part"
        self.file = self.path.open("wb")
        self.file.write(part10_head(request))

    def write(self, chunk: memoryview) -> None:
        if self.folder.fail_write:
            raise self.folder.fail_write
        if self.folder.device is not None:
            os.write(self.folder.device, chunk)
        self.file.write(chunk)

    def commit(self) -> Answer:
        if self.folder.gate:
            self.folder.gate.wait(60)
        if self.folder.fail_commit:
            raise self.folder.fail_commit
        self.file.close()
        self.path.rename(self.path.with_suffix(""))
        return Answer()

    def discard(self) -> None:
        self.file.close()
        self.path.unlink()

    def answered(self) -> None:
        """Nothing waits."""


class Everyone:
    """Knows whoever does not call himself STRANGER."""

    def recognise(self, calling_ae_title: str, address: str, certificate: bytes | None) -> str:  # noqa: ARG002 - the port's protocol
        if calling_ae_title == "STRANGER":
            raise UnknownIdentity("unknown-ae-title", "Inconnu.")
        if calling_ae_title == "BROKEN":
            raise RuntimeError("the registry is down")
        return f"{calling_ae_title}@{address}"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    root = tmp_path / "kept"
    root.mkdir()
    return Folder(root)


@pytest.fixture
def make_scp(folder: Folder) -> Iterator[Callable[..., Scp]]:
    running = []

    def make(limits: Limits | None = None, **more) -> Scp:
        scp = Scp(
            bind=Address("127.0.0.1", 0),
            ae_title="RCPGATEWAY",
            peers=Everyone(),
            storage=folder,
            limits=limits or Limits(drain_s=2),
            **more,
        )
        scp.start()
        running.append(scp)
        return scp

    yield make
    for scp in running:
        scp.stop()


@pytest.fixture
def scp(make_scp) -> Scp:
    return make_scp()
