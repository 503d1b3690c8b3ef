"""Image objects that are kept, or come in a file: the port `gateway.rcp.ports.ImageObjects`.

Promises: what comes in a file goes the very way of C-STORE (`gateway.dicom.storage`), piece by piece; what is said to
be kept is durable and indexed, its data set byte for byte as in the file. What a file is said to hold is read from
what would be kept of it: a head that two readers understand in two ways shows nobody else's object.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import BinaryIO, Final

from gateway.dicom import translate
from gateway.dicom.command import StoreRequest, part10_head
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
        """Give what the object of a file says, once it is kept. Errors as `read`."""
        request = _begun(file)
        with tempfile.TemporaryFile() as kept:
            kept.write(part10_head(request))
            shutil.copyfileobj(file, kept, CHUNK_BYTES)
            kept.seek(0)
            return translate.read(kept)

    def lay(self, file: BinaryIO, sender: Caller) -> None:
        """Keep the object of a file.

        Raises
        ------
        GatewayError
            As `gateway.dicom.storage.Keeper`'s sink.
        """
        request = _begun(file)
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


def _begun(file: BinaryIO) -> StoreRequest:
    """Read which object a file holds; it stands at the beginning of the data set afterwards."""
    file.seek(0)
    found = announced(file.read(MAX_HEAD_BYTES), whole=True)
    if found is None:
        raise InvalidContent("dicom-unreadable", "Objet DICOM illisible.")
    request, begins = found
    file.seek(begins)
    return request
