"""The port `gateway.rcp.ports.ImageCopier`: objects are copied where decoders run, and kept in the blob store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.dicom.deidentify import Copied
from gateway.dicom.drawing import Drawing
from gateway.errors import Fault, NotFound
from gateway.exchange.blobs import CHUNK_BYTES, Blob, BlobStore
from gateway.rcp.ports import CopiedObject

__all__ = ["Copier"]

#: What is not pixels; deflated objects as a whole, and their copy at once.
_MEMORY_BYTES: Final = 2 << 30
_SECONDS: Final = 60.0


class Copier:
    """Copies kept objects.

    Parameters
    ----------
    drawing
        Where it is done; a process is started for the first object.
    """

    def __init__(self, blobs: BlobStore, drawing: Drawing | None = None) -> None:
        self._blobs = blobs
        self._drawing = drawing or Drawing(processes=1, seconds=_SECONDS, memory_bytes=_MEMORY_BYTES)

    def copy(
        self, sha256: str, *, secret: bytes, pseudonym: str, options: Sequence[str], known: Sequence[str]
    ) -> CopiedObject:
        """Copy one object and keep the copy; see the port."""
        asked: dict[str, Any] = {"secret": secret, "pseudonym": pseudonym}
        asked |= {"options": list(options), "known": list(known)}
        path = self._blobs.path(sha256)
        if path is not None:
            copied, blob = self._copied(path, sha256, asked)
        else:
            with tempfile.NamedTemporaryFile(prefix="rcp-copie-") as file:
                try:
                    for chunk in self._blobs.stream(sha256):
                        file.write(chunk)
                except Fault as error:
                    raise NotFound("blob-missing", "Octets introuvables.") from error
                file.flush()
                copied, blob = self._copied(Path(file.name), sha256, asked)
        return CopiedObject(
            sha256=blob.sha256,
            size_bytes=blob.size_bytes,
            sop_class_uid=copied.sop_class_uid,
            sop_instance_uid=copied.sop_instance_uid,
            transfer_syntax_uid=copied.transfer_syntax_uid,
            uids=copied.uids,
            burned_in=copied.burned_in,
        )

    def _copied(self, path: Path, sha256: str, asked: dict[str, Any]) -> tuple[Copied, Blob]:
        """Make the head where decoders run, and let the pixels follow as they stand in the file."""
        _, content = self._drawing.do("copied", path, key=sha256, **asked)
        copied = msgspec.msgpack.decode(content, type=Copied)
        start, length = copied.pixels
        with self._blobs.stage() as staged, path.open("rb") as file:
            staged.write(copied.content)
            file.seek(start)
            while length:
                piece = file.read(min(length, CHUNK_BYTES))
                if not piece:
                    raise NotFound("blob-missing", "Octets introuvables.")
                staged.write(piece)
                length -= len(piece)
            return copied, staged.commit()

    def close(self) -> None:
        """End its process."""
        self._drawing.close()
