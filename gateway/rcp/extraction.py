"""The files of the national directory, read as they are published: one line in, one line for ``COPY`` out.

Promises: columns are found by their normalised header, whatever their order and number, and a file that lacks a needed
one is refused by its name; nothing is a quote; a malformed line is counted and left out, and more than one in a
thousand refuse the file; a file is never in memory whole, and nothing larger than a bound is unpacked. A number with a
wrong key is kept and counted [spec annuaire §8].
Not promised: that a line is true, or that a code is known: the register is the source.

[spec annuaire §7]
"""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Final

from sqlalchemy import Table

from gateway.errors import InvalidContent
from gateway.identifiers import IdNatPs, MssanteAddress
from gateway.model.directory import STAGED_MAILBOX, STAGED_PRACTICE

__all__ = ["EXTRACTIONS", "Counts", "Extraction", "Kind", "find_extraction"]

_BLOCK_BYTES: Final = 1 << 20
_LINE_BYTES: Final = 1 << 16
#: Characters of one value: two of them must fit into an entry of an index.
_VALUE_CHARACTERS: Final = 300
#: Ten times what is published: more is not unpacked.
_TEXT_BYTES: Final = 8 << 30
#: Malformed lines in a thousand that a file may have, and lines after which a hopeless one is given up.
_REJECTED_PER_THOUSAND: Final = 1
_JUDGED_AFTER: Final = 100_000
_NAME = re.compile(
    r"(PS_LibreAcces_Personne_activite|Extraction_Correspondance_MSSante)_(\d{8})\d{0,4}\b.*\.txt", re.IGNORECASE
)
_SUFFIX = re.compile(r" ?\((?:coord\. )?structure\)$")
_UNSAFE: Final = ("\\", "\t", "\r", "\0")
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": " ", "\r": " "})
_IDNPS = re.compile(r"[0-9][0-9A-Z/.\-]{1,63}", re.ASCII)

#: One line's fields → what is staged of them; `None`: nothing to keep. `ValueError`: malformed.
Shape = Callable[[list[str]], tuple[str, ...] | None]


@dataclass
class Counts:
    """Lines of a file: kept, malformed, without anything to keep; persons whose number has a wrong key."""

    rows: int = 0
    rejected: int = 0
    skipped: int = 0
    flagged: int = 0
    flagged_last: str = field(default="", repr=False)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes
    ----------
    source
        What an entry names as its source.
    columns
        Our name → header, normalised; those in `needed` must be there.
    """

    source: str
    table: Table
    columns: Mapping[str, str]
    needed: frozenset[str]
    shape: Callable[[Mapping[str, int], Counts], Shape]


@dataclass(frozen=True)
class Extraction:
    """One file, found and not read yet.

    Attributes
    ----------
    as_of
        The day that its name tells.
    size_bytes
        Of the text, unpacked.
    """

    path: Path
    kind: Kind
    name: str
    as_of: date
    size_bytes: int
    member: str | None

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self.member is None:
            with self.path.open("rb", buffering=0) as plain:
                yield plain
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as packed:
            yield io.BufferedReader(packed, _BLOCK_BYTES)  # type: ignore[type-var]  # ZipExtFile is a raw stream too

    def blocks(self, counts: Counts, told: Callable[[int], None] = lambda _done: None) -> Iterator[bytes]:
        """Read it: blocks of lines as ``COPY … WITH (NULL '')`` takes them.

        Parameters
        ----------
        counts
            Grows as the file is read.
        told
            Called with the bytes of the text that were read.

        Raises
        ------
        InvalidContent
            ``annuaire-illisible``, ``annuaire-colonnes``, ``annuaire-lignes``.
        """
        try:
            with self._open() as stream:
                yield from self._shaped(_lines(stream, told), counts)
        # The last two are zipfile's own words for a compression that it does not know and for an encrypted entry.
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise InvalidContent(
                "annuaire-illisible", f"Le fichier « {self.name} » ne peut pas être lu en entier."
            ) from error

    def _shaped(self, blocks: Iterator[list[str | None]], counts: Counts) -> Iterator[bytes]:
        shape, width = None, 0
        for lines in blocks:
            if shape is None:
                first = lines.pop(0)
                if first is None:
                    raise InvalidContent("annuaire-illisible", f"Le fichier « {self.name} » n’est pas en UTF-8.")
                header = first.removeprefix("\ufeff").rstrip("\r|").split("|")
                shape, width = self.kind.shape(self._places(header), counts), len(header)
            out = list(filter(None, map(partial(_shaped_line, shape, width, counts), lines)))
            if out:
                yield "".join(out).encode()
            if counts.rows + counts.rejected + counts.skipped > _JUDGED_AFTER:
                self._judge(counts)
        if shape is None:
            raise InvalidContent("annuaire-illisible", f"Le fichier « {self.name} » est vide.")
        self._judge(counts)

    def _places(self, header: Sequence[str]) -> Mapping[str, int]:
        found = {_normalised(name): place for place, name in reversed(list(enumerate(header)))}
        missing = sorted(self.kind.columns[ours] for ours in self.kind.needed if self.kind.columns[ours] not in found)
        if missing:
            text = (
                f"Le fichier « {self.name} » n’a pas toutes les colonnes attendues ; il manque : {', '.join(missing)}."
            )
            raise InvalidContent("annuaire-colonnes", text)
        return {ours: found[theirs] for ours, theirs in self.kind.columns.items() if theirs in found}

    def _judge(self, counts: Counts) -> None:
        total = counts.rows + counts.rejected + counts.skipped
        if counts.rejected * 1000 > total * _REJECTED_PER_THOUSAND:
            text = (
                f"Le fichier « {self.name} » a {counts.rejected} lignes mal formées sur {total}, "
                f"plus que la limite de {_REJECTED_PER_THOUSAND} pour mille."
            )
            raise InvalidContent("annuaire-lignes", text)


def find_extraction(path: Path) -> Extraction:
    """Recognise a file by its name, or the one of a ZIP by the name that it has there.

    Raises
    ------
    InvalidContent
        ``annuaire-illisible``, ``annuaire-nom``, ``annuaire-volume``.
    """
    try:
        if not zipfile.is_zipfile(path):
            return _recognised(path, path.name, path.stat().st_size, None)
        with zipfile.ZipFile(path) as archive:
            known = [one for one in archive.infolist() if _NAME.fullmatch(Path(one.filename).name)]
            if len(known) != 1:
                text = f"Le ZIP « {path.name} » contient {len(known)} fichiers de l’annuaire connus, attendu un seul."
                raise InvalidContent("annuaire-nom", text)
            return _recognised(path, Path(known[0].filename).name, known[0].file_size, known[0].filename)
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidContent("annuaire-illisible", f"Le fichier « {path.name} » ne peut pas être lu.") from error


def _recognised(path: Path, name: str, size: int, member: str | None) -> Extraction:
    said = _NAME.fullmatch(name)
    if said is None:
        text = (
            f"« {name} » n’est pas un nom de l’annuaire : attendu PS_LibreAcces_Personne_activite_AAAAMMJJhhmm.txt ou "
            "Extraction_Correspondance_MSSante_AAAAMMJJhhmm.txt, seul ou dans un ZIP."
        )
        raise InvalidContent("annuaire-nom", text)
    if size > _TEXT_BYTES:
        text = f"Le fichier « {name} » fait {size} octets, plus que la limite de {_TEXT_BYTES}."
        raise InvalidContent("annuaire-volume", text)
    try:
        as_of = datetime.strptime(said[2], "%Y%m%d").date()  # noqa: DTZ007 - a day, no instant
    except ValueError as error:
        raise InvalidContent("annuaire-nom", f"« {name} » ne porte pas une date.") from error
    return Extraction(path, EXTRACTIONS[said[1].lower()], name, as_of, size, member)


def _lines(stream: BinaryIO, told: Callable[[int], None]) -> Iterator[list[str | None]]:
    """Lines by the block; `None` for one that is no UTF-8."""
    done, rest = 0, b""
    while block := stream.read(_BLOCK_BYTES):
        done += len(block)
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if len(rest) > _LINE_BYTES:
            text = f"Une ligne du fichier dépasse la limite de {_LINE_BYTES} octets."
            raise InvalidContent("annuaire-lignes", text)
        if newline:
            yield _decoded(whole)
        told(done)
    if rest:
        yield _decoded(rest)


def _decoded(lines: bytes) -> list[str | None]:
    try:
        return [*lines.decode().split("\n")]
    except UnicodeDecodeError:
        return [_decoded_line(line) for line in lines.split(b"\n")]


def _decoded_line(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _shaped_line(shape: Shape, width: int, counts: Counts, line: str | None) -> str | None:
    if line is None:
        counts.rejected += 1
        return None
    line = line.removesuffix("\r")
    fields = line.split("|")
    if len(fields) == width + 1 and not fields[-1]:
        fields.pop()
    try:
        if len(fields) != width or "\0" in line:
            if not line:
                return None
            raise ValueError  # noqa: TRY301 - one place counts what is malformed
        kept = shape(fields)
        if kept is not None and len(line) > _VALUE_CHARACTERS and max(map(len, kept)) > _VALUE_CHARACTERS:
            raise ValueError  # noqa: TRY301 - as above
    except ValueError:
        counts.rejected += 1
        return None
    if kept is None:
        counts.skipped += 1
        return None
    counts.rows += 1
    if any(sign in line for sign in _UNSAFE):
        kept = tuple(value.translate(_ESCAPED) for value in kept)
    return "\t".join(kept) + "\n"


def _normalised(header: str) -> str:
    plain = unicodedata.normalize("NFKD", header.replace("’", "'")).encode("ascii", "ignore").decode().lower()
    return _SUFFIX.sub("", " ".join(plain.split()))


def _person(idnps: str, kind: str, number: str, counts: Counts) -> str:
    """The national identifier; one file may leave it to its two parts."""
    idnps = idnps or kind + number
    if idnps == counts.flagged_last:
        return idnps
    if not _IDNPS.fullmatch(idnps):
        raise ValueError
    counts.flagged_last = idnps
    counts.flagged += bool(IdNatPs.from_wire(idnps).faults)
    return idnps


def _structure(finess: str, siret: str, technical: str) -> str:
    """The national identifier of a structure, from the best number that stands there [spec annuaire §3]."""
    if len(finess) == 9 and finess.isalnum() and finess.isascii():
        return "1" + finess
    if len(siret) == 14 and siret.isdigit() and siret.isascii():
        return "3" + siret
    # A practice without a number of its own has the register's rank.
    return "4" + technical[1:] if technical[:1] == "R" and technical[1:].isdigit() and technical.isascii() else ""


def _reader(places: Mapping[str, int], names: Sequence[str]) -> Callable[[list[str]], Iterator[str]]:
    """What gives the values of these columns, in one pass; an empty one for a column that the file has not."""
    pick = itemgetter(*(places.get(name, -1) for name in names))

    def read(fields: list[str]) -> Iterator[str]:
        fields.append("")
        return map(str.strip, pick(fields))

    return read


def _practices(places: Mapping[str, int], counts: Counts) -> Shape:
    read = _reader(
        places,
        (
            *("idnps", "kind", "number", "family", "given", "title", "profession", "speciality_kind", "speciality"),
            *("finess", "siret", "technical", "structure", "brand"),
            *("street_number", "street_repeat", "street_kind", "street_name", "postal_code", "city", "phone"),
        ),
    )

    def shape(fields: list[str]) -> tuple[str, ...]:
        values = tuple(read(fields))
        idnps, kind, number, family, given, title, profession, know_how, speciality = values[:9]
        finess, siret, technical, structure, brand = values[9:14]
        street, postal_code, city, phone = " ".join(filter(None, values[14:18])), *values[18:]
        who = _person(idnps, kind, number, counts)
        if not family:
            raise ValueError
        where = _structure(finess, siret, technical)
        return (
            *(who, family, given, title, profession, know_how, speciality, where),
            *(structure or brand or where, street, postal_code, city, phone),
        )

    return shape


def _mailboxes(places: Mapping[str, int], counts: Counts) -> Shape:
    read = _reader(
        places,
        (
            *("kind", "address", "idnps", "family", "given", "title", "profession", "speciality"),
            *("place_kind", "place_number", "structure", "postal_code", "paperless"),
        ),
    )

    def shape(fields: list[str]) -> tuple[str, ...] | None:
        box, address, number, family, given, title, profession, speciality, *place = read(fields)
        place_kind, place_number, structure, postal_code, paperless = place
        mail = MssanteAddress.from_wire(address)
        if "@" not in mail.value or not box:
            raise ValueError
        where = place_kind + place_number if place_number else ""
        if mail.faults or box not in _OWNERS or not (number if _OWNERS[box] == "person" else where):
            return None
        who = _person(number, "", "", counts) if number else ""
        return (
            *(box, mail.value, who, family, given, title, profession, speciality),
            *(where, structure or where, postal_code, paperless),
        )

    return shape


#: Whose each kind of mailbox is (TRE_R257).
_OWNERS: Final = {"PER": "person", "CAB": "person", "ORG": "place", "APP": "place"}

_PRACTICE_COLUMNS: Final = {
    "idnps": "identification nationale pp",
    "kind": "type d'identifiant pp",
    "number": "identifiant pp",
    "title": "code civilite d'exercice",
    "family": "nom d'exercice",
    "given": "prenom d'exercice",
    "profession": "code profession",
    "speciality_kind": "code type savoir-faire",
    "speciality": "code savoir-faire",
    "siret": "numero siret site",
    "finess": "numero finess site",
    "technical": "identifiant technique de la structure",
    "structure": "raison sociale site",
    "brand": "enseigne commerciale site",
    "street_number": "numero voie",
    "street_repeat": "indice repetition voie",
    "street_kind": "libelle type de voie",
    "street_name": "libelle voie",
    "postal_code": "code postal",
    "city": "libelle commune",
    "phone": "telephone",
}
_MAILBOX_COLUMNS: Final = {
    "kind": "type de bal",
    "address": "adresse bal",
    "idnps": "identification nationale pp",
    "place_kind": "type identifiant structure",
    "place_number": "identification structure",
    "title": "civilite d'exercice",
    "family": "nom d'exercice",
    "given": "prenom d'exercice",
    "profession": "code profession",
    "speciality": "code savoir-faire",
    "paperless": "dematerialisation",
    "structure": "raison sociale structure bal",
    "postal_code": "code postal",
}

#: By the beginning of a file's name.
EXTRACTIONS: Final[Mapping[str, Kind]] = {
    "ps_libreacces_personne_activite": Kind(
        "annuaire-ps",
        STAGED_PRACTICE,
        _PRACTICE_COLUMNS,
        frozenset({"idnps", "family", "given", "profession", "speciality", "finess", "structure"}),
        _practices,
    ),
    "extraction_correspondance_mssante": Kind(
        "annuaire-mssante",
        STAGED_MAILBOX,
        _MAILBOX_COLUMNS,
        frozenset({"kind", "address", "idnps", "place_kind", "place_number", "family", "given"}),
        _mailboxes,
    ),
}
