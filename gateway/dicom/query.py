"""What a caller may find and fetch: patients, studies, series and instances that exist for him `[PS3.18 10.6]`.

Promises: the access predicate stands in every statement; DICOM JSON is made at ingest and only picked from and spliced
here; the same object received from two partners is shown once. `answer` makes of a row of
`gateway.dicom.statements` what QIDO-RS and C-FIND tell of it.
Nothing here opens a file or answers HTTP.
"""

from __future__ import annotations

import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Select

from gateway.dicom.attributes import Level, belongs
from gateway.dicom.listed import AT_HAND, Listed
from gateway.dicom.opened import Opened
from gateway.dicom.statements import MAX_INSTANCES, Question, below, kept_search, laid_down, listing, search, these
from gateway.errors import InvalidContent
from gateway.model.reads import Reads
from gateway.rcp import access
from gateway.rcp.access import Caller

__all__ = ["Found", "Images", "Matches", "answer", "once"]

T = TypeVar("T")

#: Statements of so many kinds of callers and questions are kept.
_KEPT: Final = 512
#: What begins a URL in the stored JSON, before it is made whole: no string of a JSON text holds a bare quotation mark.
_BULK: Final = b'"BulkDataURI":"bulkdata/'
_PLACES: Final = re.compile(rb'"BulkDataURI":"bulkdata/([0-9A-F]{8}(?:\.[0-9]+\.[0-9A-F]{8})*)"')


class Found(NamedTuple):
    """One instance that the caller may see, and where its bytes are."""

    study_uid: str
    series_uid: str
    instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int
    record_id: uuid.UUID | None
    pictured: bool
    sop_class_uid: str = ""
    frames: int = 1

    def address(self, base: str) -> str:
        """Give its URL below that of DICOMweb."""
        return f"{base}/studies/{self.study_uid}/series/{self.series_uid}/instances/{self.instance_uid}"


@dataclass(frozen=True, slots=True)
class Matches:
    """Answers of a search: DICOM JSON objects, the records that they name, and whether there are more."""

    answers: list[bytes] = field(default_factory=list)
    records: set[uuid.UUID] = field(default_factory=set)
    more: bool = False


# ---- what a match says


def answer(level: Level, row: Any, *, base: str | None = None) -> dict[str, Any]:
    """Give all that a match says at its level, as a DICOM JSON tree; ``base`` is DICOMweb's, for Retrieve URLs."""
    tree = {tag: element for tag, element in msgspec.json.decode(row["dicom_json"]).items() if belongs(tag, level)}
    return tree | {tag: msgspec.json.decode(element) for tag, element in _told(level, row, base).items()}


def _told(level: Level, row: Any, base: str | None) -> dict[str, bytes]:
    """Elements that no object says: counts, availability, where it is."""
    told = {"00080005": _UTF8, "00080056": _ONLINE}
    if level is Level.PATIENT:
        told["00201200"] = _is(row["studies"])
        told["00201202"] = _is(row["series"])
        told["00201204"] = _is(row["instances"])
        return told
    url = f"{base}/studies/{row['study_instance_uid']}"
    if level is Level.STUDY:
        modalities = sorted(row["modalities"] or ())
        told["00080061"] = msgspec.json.encode({"vr": "CS", "Value": modalities} if modalities else {"vr": "CS"})
        told["00201206"] = _is(row["series"])
        told["00201208"] = _is(row["instances"])
    else:
        url += f"/series/{row['series_instance_uid']}"
    if level is Level.SERIES:
        told["00201209"] = _is(row["instances"])
    if level is Level.INSTANCE:
        url += f"/instances/{row['sop_instance_uid']}"
        told["00083002"] = f'{{"vr":"UI","Value":["{row["transfer_syntax_uid"]}"]}}'.encode("ascii")
    if base is not None:
        told["00081190"] = f'{{"vr":"UR","Value":["{url}"]}}'.encode()
    return told


_UTF8: Final = b'{"vr":"CS","Value":["ISO_IR 192"]}'
_ONLINE: Final = b'{"vr":"CS","Value":["ONLINE"]}'


def _is(number: int) -> bytes:
    return f'{{"vr":"IS","Value":[{number}]}}'.encode("ascii")


@lru_cache(maxsize=64)
def _picker(
    level: Level, tags: frozenset[str]
) -> tuple[msgspec.json.Decoder[Any], tuple[tuple[bytes, str | None, str], ...]]:
    """A reader that leaves all but some attributes unread, and what an answer is put together from, in order."""
    wanted = sorted(tags | _TOLD[level])
    read = {f"_{tag}": tag for tag in wanted if tag not in _TOLD[level]}
    picked = msgspec.defstruct(
        "Picked", [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in read], rename=read
    )
    plan = tuple((b'"%s":' % tag.encode("ascii"), f"_{tag}" if f"_{tag}" in read else None, tag) for tag in wanted)
    return msgspec.json.Decoder(picked), plan


#: What `_told` says of each level.
_TOLD: Final = {
    Level.STUDY: frozenset({"00080005", "00080056", "00080061", "00081190", "00201206", "00201208"}),
    Level.SERIES: frozenset({"00080005", "00080056", "00081190", "00201209"}),
    Level.INSTANCE: frozenset({"00080005", "00080056", "00081190", "00083002"}),
}


def _spliced(level: Level, row: Any, tags: frozenset[str] | None, base: str) -> bytes:
    """Write an answer: what is asked of the stored JSON, untouched, and what no object says."""
    told = _told(level, row, base)
    if tags is None and level is Level.INSTANCE:
        more = b",".join(b'"%s":%s' % (tag.encode("ascii"), element) for tag, element in told.items())
        return _linked(row, base)[:-1] + b"," + more + b"}"
    if tags is None:
        return msgspec.json.encode(answer(level, row, base=base), order="sorted")
    decoder, plan = _picker(level, tags)
    picked = decoder.decode(row["dicom_json"])
    pieces = []
    for name, attribute, tag in plan:
        element = told[tag] if attribute is None else getattr(picked, attribute)
        if element is not msgspec.UNSET:
            pieces.append(name + element)
    made = b"{" + b",".join(pieces) + b"}"
    return _addressed(made, row, base) if level is Level.INSTANCE else made


def _linked(row: Any, base: str) -> bytes:
    """Give the stored JSON with the addresses of its bulk data."""
    return _addressed(row["dicom_json"], row, base)


def _addressed(stored: bytes, row: Any, base: str) -> bytes:
    url = (
        f"{base}/studies/{row['study_instance_uid']}/series/{row['series_instance_uid']}"
        f"/instances/{row['sop_instance_uid']}/bulkdata/"
    )
    return stored.replace(_BULK, b'"BulkDataURI":"' + url.encode())


class Images:
    """Queries of one process.

    Parameters
    ----------
    reads
        The asynchronous read path.
    """

    def __init__(self, reads: Reads) -> None:
        self.reads = reads
        self.opened = Opened(reads)
        # A statement costs more to write than its rows to read; whoever has the same rights asks by the same.
        self._kept: OrderedDict[Any, Select[Any]] = OrderedDict()

    async def search(self, caller: Caller, asked: Question, base: str, tags: frozenset[str] | None) -> Matches:
        """Answer a search; ``tags`` are the attributes of an answer, `None` all that there are at its level."""
        rows = await self._matches(caller, asked)
        shown = rows[: asked.limit]
        wanted = None if tags is None else frozenset(tag for tag in tags if belongs(tag, asked.level))
        return Matches(
            [_spliced(asked.level, row, wanted, base) for row in shown],
            {row["record_id"] for row in shown if row["record_id"]},
            len(rows) > len(shown),
        )

    async def metadata(
        self, caller: Caller, study: str, series: str | None, instance: str | None, *, base: str
    ) -> Listed[bytes] | None:
        """Give the stored JSON of a study, a series or an instance."""
        return await self._listed(caller, study, series, instance, lambda row: _linked(row, base), told=True)

    async def objects(
        self, caller: Caller, study: str, series: str | None, instance: str | None
    ) -> Listed[Found] | None:
        """Give all instances of a study or a series, or one instance."""
        return await self._listed(caller, study, series, instance, _found)

    async def find(
        self,
        caller: Caller,
        study_uid: str,
        series_uid: str | None = None,
        instance_uid: str | None = None,
        *,
        beside: Found | None = None,
    ) -> list[Found]:
        """Find the instances of a study, a series, or one instance, in their order.

        Parameters
        ----------
        beside
            An object whose patient's they have to be; two partners may say a study of two.

        Raises
        ------
        InvalidContent
            ``dicom-too-many``: more than one answer holds.
        """
        rows = await self._below(caller, study_uid, series_uid, instance_uid)
        if len(rows) > MAX_INSTANCES:
            text = f"Plus de {MAX_INSTANCES} objets à regarder ensemble : demander série par série."
            raise InvalidContent("dicom-too-many", text)
        return [
            _found(row) for row in once(row for row in rows if beside is None or row["record_id"] == beside.record_id)
        ]

    async def bulk(
        self, caller: Caller, study: str, series: str | None, instance: str | None
    ) -> Listed[tuple[Found, list[str]]] | None:
        """Give instances as `objects` does, each with the places of the values that its metadata only name."""
        return await self._listed(caller, study, series, instance, _valued, told=True)

    async def _listed(
        self,
        caller: Caller,
        study: str,
        series: str | None,
        instance: str | None,
        one: Callable[[Any], T],
        *,
        told: bool = False,
    ) -> Listed[T] | None:
        """List what there is, each made by ``one`` of its row; None when there is nothing."""
        first = await self._below(caller, study, series, instance, told=told, most=AT_HAND)
        if len(first) <= AT_HAND:
            rows = once(first)
            named = frozenset(row["record_id"] for row in rows if row["record_id"])
            syntaxes = frozenset(row["transfer_syntax_uid"] for row in rows)
            hashes = tuple(row["sha256"] for row in rows)
            return Listed(len(rows), syntaxes, named, hashes, [one(row) for row in rows]) if rows else None
        rights = access.rights(caller)
        statement = self._known(
            ("listing", rights, series is not None), lambda: listing(caller, series=series is not None)
        )
        values = {"study": study} | ({"series": series} if series is not None else {})
        [said] = await self.reads.fetch(statement, values, one_plan=True)
        page = self._known(("these", rights, told), lambda: these(caller, told=told))

        async def read(ids: list[uuid.UUID]) -> list[T]:
            return [one(row) for row in await self.reads.fetch(page, {"ids": ids}, one_plan=True)]

        count, ids, name, syntaxes, named = (said[each] for each in ("count", "ids", "sha256", "syntaxes", "records"))
        return Listed(count, frozenset(syntaxes), frozenset(named or ()), (name,), (), ids, read) if count else None

    async def laid_down(self, caller: Caller, instances: Collection[str]) -> list[Any]:
        """Rows of objects that the caller's partner has laid down: their UIDs and the record that they are of."""
        statement = self._known(("laid down", access.rights(caller)), lambda: laid_down(caller))
        return await self.reads.fetch(statement, {"instances": list(instances)}, one_plan=True)

    async def _matches(self, caller: Caller, asked: Question) -> list[Any]:
        if asked.conditions:
            return await self.reads.fetch(search(caller, asked))
        level, named = asked.level, {"study": asked.study, "series": asked.series}
        study, series = asked.study is not None, asked.series is not None
        statement = self._known(
            ("search", access.rights(caller), level, study, series),
            lambda: kept_search(caller, level, study=study, series=series),
        )
        values: dict[str, Any] = {name: uid for name, uid in named.items() if uid is not None}
        values |= {"most": asked.limit + 1, "offset": asked.offset}
        return await self.reads.fetch(statement, values, one_plan=study)

    async def _below(
        self,
        caller: Caller,
        study: str,
        series: str | None,
        instance: str | None,
        *,
        told: bool = False,
        most: int = MAX_INSTANCES,
    ) -> list[Any]:
        shape = (series is not None, instance is not None, told, most)
        statement = self._known(
            ("below", access.rights(caller), *shape),
            lambda: below(caller, series=shape[0], instance=shape[1], told=told, most=most),
        )
        said = {"study": study, "series": series, "instance": instance}
        values = {name: uid for name, uid in said.items() if uid is not None}
        return await self.reads.fetch(statement, values, one_plan=True)

    def _known(self, shape: tuple[Any, ...], write: Callable[[], Select[Any]]) -> Select[Any]:
        statement = self._kept.get(shape)
        if statement is None:
            statement = self._kept[shape] = write()
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return statement


def _found(row: Any) -> Found:
    return Found(
        row["study_instance_uid"],
        row["series_instance_uid"],
        row["sop_instance_uid"],
        row["transfer_syntax_uid"],
        row["sha256"],
        row["size_bytes"],
        row["record_id"],
        row["rows"] is not None,
        row["sop_class_uid"],
        row["number_of_frames"] or 1,
    )


def _valued(row: Any) -> tuple[Found, list[str]]:
    return _found(row), [one.decode("ascii") for one in _PLACES.findall(row["dicom_json"])]


def once(rows: Iterable[Any]) -> list[Any]:
    """Leave out what came from a second partner: the same object as the first."""
    seen: dict[str, Any] = {}
    for row in rows:
        seen.setdefault(row["sop_instance_uid"], row)
    return list(seen.values())
