"""IHE_XDM.zip as others send it: its documents, once hash, size, patient and identifiers are those of the very bytes.

Promises: an archive is taken whole or refused with one code for the reason; nothing is written to a disk, fetched or
rendered; what the metadata say of a document (hash, size, URI, patient, identifier) is compared with the document
itself. What is only spelt otherwise (case, an enclosing folder, other folder names, a type of identifier) is accepted
with a note. A PDF beside a CDA is a document of its own, of the patient whom that CDA names. Not promised: that the
patient exists here (`gateway.rcp.received`), nor conformity of the document.

Sources: [IHE ITI XDM], [IHE ITI XDS metadata] as spec mssante 2.7 to 2.10, 6.1, 7.4 (X01 to X18, X34) give them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from msgspec.structs import replace

from gateway.documents import cda_header
from gateway.documents.safe_xml import Element, parse
from gateway.errors import InvalidContent
from gateway.mssante.archive import ZIP_MAGIC, ArchiveLimits, unpack
from gateway.rcp.received import DocumentHeader, copy_set
from gateway.rcp.report_content import Identifier

__all__ = ["Archive", "ReceivedEntry", "read"]

_NS = {"rim": "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"}
_REQUEST = "{urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0}SubmitObjectsRequest"
_DOCUMENT = "urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1"
_SUBMISSION = "urn:uuid:a54d6aa5-d40d-43f9-88c5-b4633d873bdd"
_PATIENT_OF_DOCUMENT = "urn:uuid:58a6f841-87b3-4a3e-92fd-a8ffeff98427"
_ID_OF_DOCUMENT = "urn:uuid:2e82c1f6-a085-4c72-9da3-8640a32e42ab"
_PATIENT_OF_SET = "urn:uuid:6b5aea1a-874d-4603-a4bc-96a0a7b38446"
_ACTION = "urn:action:extraMetadataSlot"
_METADATA = "metadata.xml"
_BESIDE = frozenset({"readme.txt", "index.htm", "index.html"})
_XML_TYPES = frozenset({"text/xml", "application/xml", "application/xslt+xml"})
_TYPE_OF_DOCUMENT = "urn:uuid:f0306f51-975f-434e-a61c-c59651d33983"
_FORMAT_OF_DOCUMENT = "urn:uuid:a09d5840-386c-46f2-b5ad-9c3699a4309d"
_UNIQUE = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+(?:\^[^\s^&|]{1,64})?")
_PDF_TYPE, _PDF_MAGIC = "application/pdf", b"%PDF-"
_CX = re.compile(r"(?P<id>[^^&]+)\^{3}[^&^]*&(?P<root>[0-9.]+)(?P<iso>&ISO)?(?:\^(?P<kind>[A-Z]+))?(?:\^.*)?")


@dataclass(frozen=True, slots=True)
class ReceivedEntry:
    """One document of an archive.

    Attributes
    ----------
    action
        ``C`` replaces, ``D`` withdraws, none for a first sending [spec mssante 6.1].
    format_code
        What the sender says that the document is; read by nobody here, kept for a person.
    """

    header: DocumentHeader
    content: bytes = field(repr=False)
    content_type: str
    action: Literal["C", "D"] | None
    format_code: str | None


@dataclass(frozen=True, slots=True)
class Archive:
    """The documents of an archive, all of one patient, and what was accepted though it is spelt otherwise."""

    entries: tuple[ReceivedEntry, ...]
    notes: tuple[str, ...] = ()


def read(content: bytes, limits: ArchiveLimits | None = None) -> Archive:
    """Read an archive whole.

    Raises
    ------
    InvalidContent
        As `gateway.mssante.archive.unpack`, `gateway.documents.safe_xml.parse` and
        `gateway.documents.cda_header.read`; ``xdm-imbrique``, ``xdm-sans-metadata``, ``xdm-deux-metadata``,
        ``xdm-metadata``, ``xdm-chemin``, ``xdm-fichier-absent``, ``xdm-empreinte``, ``xdm-taille``,
        ``xdm-patients``, ``xdm-patient``, ``xdm-identifiant``, ``xdm-action``, ``xdm-sans-cda``.
    """
    return _Reading(unpack(content, limits)).run()


class _Reading:
    """One archive on its way."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._by_fold = {name.casefold(): name for name in files}
        self._notes: list[str] = []
        self._used: set[str] = set()
        self._copies: list[tuple[Element, bytes]] = []

    def run(self) -> Archive:
        """Read every submission set."""
        patients: set[tuple[str, str]] = set()
        entries = [one for place in self._metadata_places() for one in self._set(place, patients)]
        copies = [self._copy(one, content, entries) for one, content in self._copies] if entries else []
        entries += copies
        if len(patients) != 1:
            raise InvalidContent("xdm-patients", "Archive refusée : elle désigne plusieurs patients.")
        if not entries:
            raise InvalidContent("xdm-sans-cda", "Archive refusée : elle ne contient aucun document CDA.")
        if len({one.header.unique_id for one in entries}) != len(entries):
            raise InvalidContent("xdm-identifiant", "Archive refusée : deux documents portent le même identifiant.")
        for name in self._files:
            if name not in self._used and name.rpartition("/")[2].casefold() not in _BESIDE:
                self._note("entree-hors-metadata")  # X08
        return Archive(tuple(entries), tuple(self._notes))

    def _set(self, place: str, patients: set[tuple[str, str]]) -> Iterator[ReceivedEntry]:
        self._used.add(place)
        root = parse(self._files[place])
        if root.tag != _REQUEST:
            raise _metadata("sa racine n’est pas celle d’un envoi")
        objects = _all(root, ".//rim:ExtrinsicObject")
        sets = _all(root, f".//rim:RegistryPackage[rim:Classification/@classificationNode='{_SUBMISSION}']")
        if not objects or not sets:
            raise _metadata("il y manque le document ou le lot")
        patients |= {self._patient(one, _PATIENT_OF_SET) for one in sets}
        for one in objects:
            patients.add(self._patient(one, _PATIENT_OF_DOCUMENT))
            entry = self._entry(one, place)
            if entry is not None:
                yield entry

    def _note(self, code: str) -> None:
        if code not in self._notes:
            self._notes.append(code)

    def _metadata_places(self) -> Sequence[str]:
        found = [name for name in self._files if name.rpartition("/")[2].casefold() == _METADATA]
        if not found:
            if any(content.startswith(ZIP_MAGIC) for content in self._files.values()):
                raise _nested()
            raise InvalidContent("xdm-sans-metadata", "Archive refusée : elle n’a pas de METADATA.XML.")
        folders = [name.casefold().split("/")[:-1] for name in found]
        sets = {tuple(folder[:-1]) for folder in folders}
        # Several sets are several folders of one IHE_XDM; any other second METADATA.XML could hide the first.
        if len(found) > 1 and (len(sets) != 1 or any(folder[-2:-1] != ["ihe_xdm"] for folder in folders)):
            raise InvalidContent("xdm-deux-metadata", "Archive refusée : elle a plusieurs METADATA.XML.")
        for name, folder in zip(found, folders, strict=True):
            if folder[-2:-1] != ["ihe_xdm"]:
                raise InvalidContent("xdm-chemin", "Archive refusée : METADATA.XML n’est pas dans IHE_XDM.")
            if name != name.upper():
                self._note("casse")
            if len(folder) > 2:
                self._note("dossier-englobant")
            if not re.fullmatch(r"subset\d{2}", folder[-1]):
                self._note("nom-de-lot")
        return found

    def _entry(self, said: Element, place: str) -> ReceivedEntry | None:
        if said.get("objectType") != _DOCUMENT:
            raise _metadata("un objet n’est pas un document")
        content = self._content(said, place)
        if (said.get("mimeType") or "").lower() not in _XML_TYPES:
            if content.startswith(ZIP_MAGIC):
                raise _nested()
            if (said.get("mimeType") or "").lower() == _PDF_TYPE and content.startswith(_PDF_MAGIC):
                self._copies.append((said, content))
            else:
                self._note("document-non-cda")
            return None
        header = cda_header.read(content)
        self._same_patient(said, header)
        if _external(said, _ID_OF_DOCUMENT) != header.unique_id:
            text = "Archive refusée : l’identifiant d’un document n’est pas celui que disent ses métadonnées."
            raise InvalidContent("xdm-identifiant", text)
        return ReceivedEntry(header, content, "text/xml", _action(said, header), _format_code(said))

    def _copy(self, said: Element, content: bytes, among: Sequence[ReceivedEntry]) -> ReceivedEntry:
        """Take a PDF: what it is by its metadata, whose it is by the CDA beside it."""
        unique = _external(said, _ID_OF_DOCUMENT)
        if not _UNIQUE.fullmatch(unique):
            raise _metadata("l’identifiant d’un document est mal formé")
        beside, alone = among[0], len(among) == len(self._copies) == 1
        self._same_patient(said, beside.header)
        code, label = _classified(said, _TYPE_OF_DOCUMENT)
        header = replace(
            beside.header,
            unique_id=unique,
            set_id=copy_set(beside.header.set_id) if alone else None,
            version=beside.header.version if alone else None,
            replaces=None,
            type_code=code,
            type_label=label,
            title=_name(said) or beside.header.title,
            format="pdf",
            pdf=None,
        )
        values = _slot(said, _ACTION)
        if values not in ([], ["C"], ["D"]):
            raise _wrong_action()
        # The copy goes with the document that it copies [spec mssante 6.1].
        action = cast("Literal['C', 'D']", values[0]) if values else beside.action if alone else None
        return ReceivedEntry(header, content, _PDF_TYPE, action, _format_code(said))

    def _content(self, said: Element, place: str) -> bytes:
        name = self._name(_one(said, "URI"), place)
        if name is None:
            raise InvalidContent("xdm-fichier-absent", "Archive refusée : un document annoncé n’y est pas.")
        if name in self._used:
            raise _metadata("un fichier y est décrit deux fois")
        self._used.add(name)
        content = self._files[name]
        size, digest = _one(said, "size"), _one(said, "hash")
        if not re.fullmatch(r"[0-9]{1,12}", size) or int(size) != len(content):
            raise InvalidContent("xdm-taille", "Archive refusée : la taille d’un document n’est pas celle annoncée.")
        if hashlib.sha1(content, usedforsecurity=False).hexdigest() != digest.lower():
            raise InvalidContent("xdm-empreinte", "Archive refusée : l’empreinte d’un document n’est pas la sienne.")
        return content

    def _name(self, uri: str, place: str) -> str | None:
        if not uri or re.search(r"^[A-Za-z][A-Za-z0-9+.-]*:|^/|(?:^|/)\.\.?(?:/|$)|[\\%\x00-\x1f\x7f]", uri):
            raise InvalidContent("xdm-chemin", "Archive refusée : l’adresse d’un document sort de l’archive.")
        folder = place.rpartition("/")[0]
        beside = f"{folder}/{uri}"
        if beside in self._files:
            return beside
        above = folder.rpartition("/")[0].rpartition("/")[0]
        wanted = (beside, f"{above}/{uri}".lstrip("/"))  # some write the folders of the archive again (DRIMbox)
        found = next((self._by_fold[one.casefold()] for one in wanted if one.casefold() in self._by_fold), None)
        if found is not None:
            self._note("uri")
        return found

    def _patient(self, said: Element, scheme: str) -> tuple[str, str]:
        return self._cx(_external(said, scheme))

    def _cx(self, text: str) -> tuple[str, str]:
        """Return root and value of a patient identifier; what is only spelt otherwise is noted (X14)."""
        plain = text.strip()
        if "&amp;" in plain:
            plain = plain.replace("&amp;", "&")
            self._note("patient-echappe-deux-fois")
        found = _CX.fullmatch(plain)
        if found is None:
            raise InvalidContent("xdm-patient", "Archive refusée : l’identifiant de patient est illisible.")
        if found["iso"] is None:
            self._note("patient-sans-iso")
        if found["kind"] not in {"NH", "PI"}:
            self._note("patient-type")
        return found["root"], found["id"]

    def _same_patient(self, said: Element, header: DocumentHeader) -> None:
        values = _slot(said, "sourcePatientId")
        if len(values) > 1:
            raise _metadata("sourcePatientId y est dit plusieurs fois")
        named = [self._patient(said, _PATIENT_OF_DOCUMENT), *(self._cx(value) for value in values)]
        if any(Identifier(root=root, extension=value) not in header.patient_ids for root, value in named):
            text = "Archive refusée : le patient d’un document n’est pas celui que disent ses métadonnées."
            raise InvalidContent("xdm-patients", text)


def _all(root: Element, path: str) -> list[Element]:
    return cast("list[Element]", root.xpath(path, namespaces=_NS))


def _slot(said: Element, name: str) -> list[str]:
    slots = [one for one in said.iterchildren(f"{{{_NS['rim']}}}Slot") if one.get("name") == name]
    return [(value.text or "").strip() for slot in slots for value in _all(slot, "rim:ValueList/rim:Value")]


def _one(said: Element, name: str) -> str:
    values = _slot(said, name)
    if len(values) != 1:
        raise _metadata(f"{name} n’y est pas dit une fois")
    return values[0]


def _external(said: Element, scheme: str) -> str:
    wanted = [one.get("value") or "" for one in _identifiers(said) if one.get("identificationScheme") == scheme]
    if len(wanted) != 1:
        raise _metadata("un identifiant n’y est pas dit une fois")
    return wanted[0]


def _identifiers(said: Element) -> Iterator[Element]:
    return said.iterchildren(f"{{{_NS['rim']}}}ExternalIdentifier")


def _action(said: Element, header: DocumentHeader) -> Literal["C", "D"] | None:
    values = _slot(said, _ACTION)
    if not values:
        return None
    if values == ["C"] and header.replaces is not None:
        return "C"
    if values == ["D"]:
        return "D"
    raise _wrong_action()


def _wrong_action() -> InvalidContent:
    text = "Archive refusée : l’action demandée n’est ni un remplacement d’un document nommé, ni un retrait."
    return InvalidContent("xdm-action", text)


def _format_code(said: Element) -> str | None:
    return _classified(said, _FORMAT_OF_DOCUMENT)[0]


def _classified(said: Element, scheme: str) -> tuple[str | None, str | None]:
    """Return a code of a document and its label."""
    found = _all(said, f"rim:Classification[@classificationScheme='{scheme}']")
    if not found:
        return None, None
    return (found[0].get("nodeRepresentation") or "")[:255] or None, _name(found[0])


def _name(said: Element) -> str | None:
    found = _all(said, "rim:Name/rim:LocalizedString[@value]")
    return " ".join((found[0].get("value") or "").split())[:1000] or None if found else None


def _nested() -> InvalidContent:
    return InvalidContent("xdm-imbrique", "Archive refusée : une archive dans l’archive n’est pas ouverte.")


def _metadata(reason: str) -> InvalidContent:
    return InvalidContent("xdm-metadata", f"Archive refusée : METADATA.XML est incorrect ({reason}).")
