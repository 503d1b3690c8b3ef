"""What kept objects say: the port `gateway.rcp.ports.ImageObjects` over the blob store."""

from __future__ import annotations

from gateway.dicom import translate
from gateway.exchange.blobs import BlobStore
from gateway.rcp.imaging_facts import ObjectFacts

__all__ = ["KeptObjects"]


class KeptObjects:
    """Reads objects by the SHA-256 under which their bytes are kept."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

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
