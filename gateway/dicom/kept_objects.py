"""Image objects that are kept, or come in a file: the port `gateway.rcp.ports.ImageObjects`.

Promises: what comes in a file goes the very way of C-STORE (`gateway.dicom.storage`), piece by piece; what is said to
be kept is durable and indexed, its data set byte for byte as in the file.
"""

from __future__ import annotations

from typing import BinaryIO, Final

from gateway.dicom import translate
from gateway.dicom.part10 import MAX_HEAD_BYTES, announced
from gateway.dicom.storage import Keeper
from gateway.errors import Conflict, InvalidContent
from gateway.exchange.blobs import CHUNK_BYTES, BlobStore
from gateway.rcp.access import Caller
from gateway.rcp.imaging_facts import ObjectFacts

__all__ = ["KeptObjects"]

_SUCCESS: Final = 0x0000


class KeptObjects:
    """Reads objects by the SHA-256 under which their bytes are kept, and keeps those of files."""

    def __init__(self, blobs: BlobStore, keeper: Keeper) -> None:
        self._blobs = blobs
        self._keeper = keeper

    def read(self, sha256: str) -> ObjectFacts:
        """Give what one says.

        Raises
        ------
        InvalidContent
            ``dicom-unreadable``, ``dicom-too-large``, ``dicom-missing-uid``.
        """
        path = self._blobs.path(sha256)
        if path is not None:
            return translate.read(path)
        with self._blobs.open(sha256) as file:
            return translate.read(file)

    def look(self, file: BinaryIO) -> ObjectFacts:
        """Give what a file says; it stands at its beginning afterwards. Errors as `read`."""
        file.seek(0)
        found = translate.read(file)
        file.seek(0)
        return found

    def lay(self, file: BinaryIO, sender: Caller) -> None:
        """Keep the object of a file.

        Raises
        ------
        GatewayError
            As `gateway.dicom.storage.Keeper`'s sink.
        """
        file.seek(0)
        head = file.read(MAX_HEAD_BYTES)
        found = announced(head, whole=True)
        if found is None:
            raise InvalidContent("dicom-unreadable", "Objet DICOM illisible.")
        request, begins = found
        file.seek(begins)
        sink = self._keeper.open(request, sender)
        try:
            while piece := file.read(CHUNK_BYTES):
                sink.write(memoryview(piece))
            answer = sink.commit()
        except BaseException:
            sink.discard()
            raise
        if answer.status != _SUCCESS:
            raise Conflict("duplicate-instance", "SOPInstanceUID déjà reçu avec d’autres octets.")
