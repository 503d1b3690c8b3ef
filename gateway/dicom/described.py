"""Objects that a STOW request describes: metadata in some parts, bulk data in others `[PS3.18 10.5]`.

Promises
--------
* Bulk data are staged where contents are, one file after the other, and go from there into their object: memory holds
  the metadata and what one object is described with, both limited by name, and some pieces.
* Bulk data are found by their Content-Location, which is a name among the parts of one request and nothing else: no
  address is followed and no file of ours is opened by it.
* An object of which something is missing or wrong is refused, the others are kept; a part that no object names is told.
* However often a part is named, what is made of a request weighs no more than a request may.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from typing import Any, Final

import msgspec

from gateway.dicom import native_model, outcome
from gateway.dicom.command import StoreRequest
from gateway.dicom.data_sets import JSON, XML
from gateway.dicom.encoded import Part, encoded, named, transfer_syntax
from gateway.dicom.intake import Intake, Sink
from gateway.dicom.multipart import MAX_PARTS, Reader, media_type
from gateway.dicom.transfer import OCTETS
from gateway.dicom.upload import Laid, Upload
from gateway.errors import GatewayError, InvalidContent, Unsupported
from gateway.exchange.blobs import CHUNK_BYTES, BlobStore, Staged
from gateway.settings import Limits
from gateway.web.body import Limit

__all__ = ["Described"]

LOG = logging.getLogger(__name__)

#: A file of bulk data takes further ones up to here: few files, none over the store's limit because of its neighbours.
_FILE_BYTES: Final = 1 << 30
_MAX_LOCATION: Final = 1024
#: What stands before or after a value in memory: each costs a hundred bytes at most, in XML two hundred.
_MARKS: Final = {JSON: (b"{", b"[", b",", b":"), XML: (b"<", b"=")}
#: A description becomes many times its length of memory: of the long ones, one at a time in a process.
_LONG_BYTES: Final = 64 << 10
_ONE_LONG: Final = threading.Lock()


class Described(Upload):
    """The objects of one request.

    Parameters
    ----------
    kind
        Media type of the metadata.
    blobs
        Where bulk data are staged.
    limits
        ``stow_bytes`` of one request, and of the bulk data of all its objects; ``stow_metadata_bytes`` of what
        describes them, ``stow_metadata_values`` of one object.
    """

    def __init__(
        self,
        reader: Reader,
        begin: Callable[[StoreRequest], Intake],
        commits: ThreadPoolExecutor,
        prepare: Callable[[Sequence[Sink]], None],
        accompany: Callable[[Sink], None],
        *,
        kind: str,
        blobs: BlobStore,
        limits: Limits,
    ) -> None:
        super().__init__(reader, begin, commits, prepare, accompany)
        self._kinds = {kind} if kind == XML else {JSON, "application/json"}
        self._marks = _MARKS[kind]
        self._blobs = blobs
        self._limits = limits
        self._left = limits.stow_bytes
        self._stack = ExitStack()
        self._staged: Staged | None = None
        self._documents: list[bytearray] = []
        self._open: bytearray | None = None
        self._held = 0
        self._brought: dict[str, list[Part]] = {}
        self._part: tuple[str, Staged, int, str, str | None] | None = None
        self._named: set[str] = set()

    def finish(self, data: bytes | bytearray, position: int = 0, end: int | None = None) -> None:
        """As `Upload.finish`; refuses a request without readable metadata.

        Raises
        ------
        InvalidContent
            ``multipart``, ``dicom-json``, ``body-too-large``.
        """
        super().finish(data, position, end)
        self._stack.close()

    def close(self) -> None:
        """As `Upload.close`."""
        super().close()
        self._stack.close()

    # ---- parts

    def _started(self, fields: dict[str, str]) -> None:
        name, said = media_type(fields.get("content-type", OCTETS))
        location = fields.get("content-location", "")
        if fields.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
            raise InvalidContent("multipart", "Contenu « multipart/related » illisible : partie codée, et non binaire.")
        if name in self._kinds:
            self._open = bytearray()
        elif location and len(location) <= _MAX_LOCATION:
            if self._staged is None or self._staged.size_bytes >= _FILE_BYTES:
                self._staged = self._stack.enter_context(self._blobs.stage())
            self._part = (location, self._staged, self._staged.size_bytes, name, said.get("transfer-syntax"))
        else:
            self.laid.append(Laid())
            text = f"Partie sans « Content-Location » de {_MAX_LOCATION} caractères au plus."
            self._refuse(Unsupported("type-de-contenu", text))

    def _written(self, content: memoryview) -> None:
        if self._open is not None:
            self._held += len(content)
            if self._held > self._limits.stow_metadata_bytes:
                name = "stow_metadata_bytes"
                raise Limit(self._limits.variable(name), self._limits.stow_metadata_bytes).refusal()
            self._open += content
        elif self._part is not None:
            self._part[1].write(content)

    def _ended(self) -> None:
        if self._open is not None:
            self._documents.append(self._open)
        elif self._part is not None:
            location, staged, start, name, syntax = self._part
            part = Part(staged.path, start, staged.size_bytes - start, name, syntax)
            self._brought.setdefault(location, []).append(part)
        self._open = self._part = None

    # ---- objects

    def _arrived(self) -> None:
        if not self._documents:
            raise InvalidContent("dicom-json", "Demande sans métadonnées.")
        read = native_model.read if XML in self._kinds else _tree
        for document in self._documents:
            objects = [document] if XML in self._kinds else self._objects(document)
            if len(objects) + len(self.laid) > MAX_PARTS:
                raise InvalidContent("multipart", f"Demande de plus de {MAX_PARTS} objets.")
            for one in objects:
                with _ONE_LONG if len(one) > _LONG_BYTES else nullcontext():
                    content = bytes(one)
                    self._weigh(content, *self._marks)
                    self._assembled(content, read)
        self._documents = []
        for _ in self._brought.keys() - self._named:
            self.laid.append(Laid())
            self._refuse(InvalidContent("dicom-bulk", "Partie qu’aucun objet ne nomme.", rule=True))

    def _objects(self, document: bytearray) -> Sequence[msgspec.Raw]:
        """Cut DICOM JSON into its objects, which are read one by one."""
        with _ONE_LONG if len(document) > _LONG_BYTES else nullcontext():
            self._weigh(document, b"{")
            try:
                return msgspec.json.decode(document, type=list[msgspec.Raw])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                text = "Métadonnées « application/dicom+json » illisibles : une liste d’objets est attendue."
                raise InvalidContent("dicom-json", text) from None

    def _weigh(self, content: bytes | bytearray, *marks: bytes) -> None:
        if sum(map(content.count, marks)) > self._limits.stow_metadata_values:
            text = f"Trop d’éléments dans les métadonnées d’un objet : {self._limits.told('stow_metadata_values')}."
            raise InvalidContent("body-too-large", text)

    def _found(self, location: str) -> Sequence[Part]:
        self._named.add(location)
        return self._brought.get(location, ())

    def _lent(self, part: Part) -> None:
        """Let an object have a part; of one that others have as well the bytes count again."""
        if part.length > self._left:
            raise Limit(self._limits.variable("stow_bytes"), self._limits.stow_bytes).refusal()
        self._left -= part.length

    def _assembled(self, document: bytes, read: Callable[[bytes], dict[str, Any]]) -> None:
        self.laid.append(Laid())
        one, intake = self.laid[-1], None
        try:
            tree = read(document)
            one.sop_class_uid, one.sop_instance_uid = named(tree)
            syntax = transfer_syntax(tree, self._found)
            intake = self._begin(StoreRequest(1, 1, one.sop_class_uid, one.sop_instance_uid, syntax))
            for piece in encoded(tree, self._found, syntax):
                if isinstance(piece, bytes):
                    intake.write(memoryview(piece))
                else:
                    self._lent(piece)
                    _copy(piece, intake)
        except Exception as error:  # noqa: BLE001 - whatever it was, the other objects are kept
            if not isinstance(error, GatewayError):
                LOG.error("described object not understood: %s", outcome.where(error))  # noqa: TRY400 - no traceback
            if intake is not None:
                intake.close()
            self._refuse(error)
            return
        self._keep(one, intake)


def _tree(document: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidContent("dicom-json", "Objet illisible dans les métadonnées.") from None


def _copy(part: Part, intake: Intake) -> None:
    with part.path.open("rb", buffering=0) as file:
        file.seek(part.start)
        left = part.length
        while left:
            piece = file.read(min(left, CHUNK_BYTES))
            if not piece:
                raise InvalidContent("dicom-bulk", "Partie incomplète.")
            intake.write(memoryview(piece))
            left -= len(piece)
