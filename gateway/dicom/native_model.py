"""DICOM JSON to the Native DICOM Model in XML and back `[PS3.18 F, PS3.19 A.1]`.

Promises: what the JSON says is written, private attributes under their creator's name, well-formed whatever the texts
hold; what is read is a tree of the DICOM JSON Model, its private blocks given out anew; nothing that a document names
is ever fetched, and no document type is read (`gateway.documents.safe_xml`). Not promised: to judge values; numbers are
read as the texts that they stand as.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import msgspec
from pydicom.datadict import keyword_for_tag

from gateway.documents.safe_xml import Element, parse
from gateway.errors import InvalidContent

__all__ = ["NAMESPACE", "read", "written"]

NAMESPACE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_HEAD: Final = f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">'
#: What no XML 1.0 document holds, not even as a reference.
_NO_CHARACTER: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS: Final = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_VR: Final = re.compile(r"[A-Z]{2}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,6}")
#: Values that a document leaves out between those that it numbers, all together.
_MAX_GAPS: Final = 10_000


# ---- JSON to XML


def written(stored: bytes) -> bytes:
    """Write one data set, which is a DICOM JSON object, as a document."""
    parts = [_HEAD]
    _data_set(msgspec.json.decode(stored), parts)
    parts.append("</NativeDicomModel>")
    return "".join(parts).encode()


def _data_set(tree: Mapping[str, Any], parts: list[str]) -> None:
    creators = dict(_creators(tree))
    for tag, element in sorted(tree.items()):
        if tag.endswith("0000"):
            continue  # lengths of groups are a file's [PS3.18 F.2.2]
        vr = element.get("vr", "UN")
        creator = creators.get(f"{tag[:4]}00{tag[4:6]}")
        if creator is not None:
            named = f'tag="{tag[:4]}00{tag[6:]}" vr={quoteattr(vr)} privateCreator={quoteattr(_plain(creator))}'
        else:
            named = f'tag="{tag}" vr={quoteattr(vr)}{_keyword(tag)}'
        parts.append(f"<DicomAttribute {named}>")
        if "BulkDataURI" in element:
            parts.append(f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>")
        elif "InlineBinary" in element:
            parts.append(f"<InlineBinary>{element['InlineBinary']}</InlineBinary>")
        else:
            _values(vr, element.get("Value", ()), parts)
        parts.append("</DicomAttribute>")


def _values(vr: str, values: Any, parts: list[str]) -> None:
    for number, value in enumerate(values, 1):
        if vr == "SQ":
            parts.append(f'<Item number="{number}">')
            _data_set(value or {}, parts)
            parts.append("</Item>")
        elif vr == "PN":
            parts.append(f'<PersonName number="{number}">{"".join(_name(value or {}))}</PersonName>')
        else:
            text = "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
            parts.append(f'<Value number="{number}">{_text(text)}</Value>')


def _name(groups: Mapping[str, str]) -> Iterator[str]:
    for group in _GROUPS:
        said = groups.get(group)
        if said:
            components = zip(_COMPONENTS, said.split("^"), strict=False)
            inner = "".join(f"<{name}>{_text(text)}</{name}>" for name, text in components if text)
            yield f"<{group}>{inner}</{group}>"


def _creators(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the attributes that name the private blocks, and what they name them `[PS3.5 7.8.1]`."""
    for tag, element in tree.items():
        if tag[4:6] == "00" and int(tag[3], 16) & 1 and tag[6:] >= "10":
            values = element.get("Value") or [None]
            if isinstance(values[0], str) and values[0]:
                yield tag, values[0]


@lru_cache(maxsize=4096)
def _keyword(tag: str) -> str:
    keyword = keyword_for_tag(int(tag, 16))
    return f' keyword="{keyword}"' if keyword else ""


def _plain(text: str) -> str:
    return _NO_CHARACTER.sub("\ufffd", text)


def _text(text: str) -> str:
    return escape(_plain(text), {"\r": "&#13;"})


# ---- XML to JSON


def read(content: bytes) -> dict[str, Any]:
    """Read a document as a DICOM JSON tree, its values as texts.

    Raises
    ------
    InvalidContent
        ``dicom-xml``, ``xml-entites``, ``xml-malforme``.
    """
    root = parse(content)
    if _local(root) != "NativeDicomModel":
        raise _refusal("NativeDicomModel attendu")
    return _Reading().data_set(root)


class _Reading:
    """One document."""

    def __init__(self) -> None:
        self._gaps = 0

    def data_set(self, above: Element) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        private: list[tuple[int, str, dict[str, Any]]] = []
        for element in _children(above, "DicomAttribute"):
            tag, vr = element.get("tag", ""), element.get("vr", "")
            if not _TAG.fullmatch(tag) or not _VR.fullmatch(vr):
                raise _refusal("attribut « tag » ou « vr » invalide")
            creator = element.get("privateCreator")
            said = self._said(vr, element)
            if creator is not None:
                private.append((int(tag, 16), creator, said))
            elif tree.setdefault(tag.upper(), said) is not said:
                raise _refusal(f"attribut {tag.upper()} répété")
        _give_blocks(tree, private)
        return tree

    def _said(self, vr: str, element: Element) -> dict[str, Any]:
        said: dict[str, Any] = {"vr": vr}
        values: list[Any] = []
        for one in _children(element):
            name = _local(one)
            if name == "BulkData":
                # A UUID names what an application holds in memory [PS3.19 A.1.5]: no part of a request can be it.
                said["BulkDataURI"] = one.get("uri") or ""
            elif name == "InlineBinary":
                said["InlineBinary"] = "".join((one.text or "").split())
            else:
                values += [None] * self._gap(one, len(values))
                values.append(self._value(vr, name, one))
        if values:
            said["Value"] = values
        return said

    def _gap(self, one: Element, before: int) -> int:
        """How many values stand, empty, between the one before and this."""
        number = one.get("number", "")
        gap = int(number) - before - 1 if _NUMBER.fullmatch(number) else -1
        self._gaps += max(gap, 0)
        if gap < 0 or self._gaps > _MAX_GAPS:
            raise _refusal("attribut « number » invalide")
        return gap

    def _value(self, vr: str, name: str, one: Element) -> Any:
        expected = {"SQ": "Item", "PN": "PersonName"}.get(vr, "Value")
        if name != expected:
            raise _refusal(f"élément {expected} attendu")
        if vr == "SQ":
            return self.data_set(one)
        if vr == "PN":
            return {_local(group): _components(group) for group in _children(one) if _local(group) in _GROUPS}
        if len(one):
            raise _refusal("valeur qui n’est pas un texte")
        return one.text or ""


def _components(group: Element) -> str:
    said = {_local(one): one.text or "" for one in _children(group)}
    if any("^" in text or "=" in text for text in said.values()) or not said.keys() <= set(_COMPONENTS):
        raise _refusal("nom de personne invalide")
    return "^".join(said.get(name, "") for name in _COMPONENTS).rstrip("^")


def _give_blocks(tree: dict[str, Any], private: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Put private attributes into blocks, one for each creator of a group `[PS3.5 7.8.1]`."""
    blocks = {(int(tag[:4], 16), name): int(tag[6:], 16) for tag, name in _creators(tree)}
    for tag, creator, said in private:
        group, number = tag >> 16, tag & 0xFF
        block = blocks.get((group, creator))
        if block is None:
            free = (one for one in range(0x10, 0x100) if f"{group:04X}00{one:02X}" not in tree)
            block = next(free, None)
            if block is None or not group & 1:
                raise _refusal(f"attribut privé {tag:08X}")
            blocks[group, creator] = block
            tree[f"{group:04X}00{block:02X}"] = {"vr": "LO", "Value": [creator]}
        if tree.setdefault(f"{group:04X}{block:02X}{number:02X}", said) is not said:
            raise _refusal(f"attribut privé {tag:08X} répété")


def _children(above: Element, name: str | None = None) -> Iterator[Element]:
    for one in above.iterchildren(tag="{*}*"):
        if name is not None and _local(one) != name:
            raise _refusal(f"élément {name} attendu")
        yield one


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _refusal(what: str) -> InvalidContent:
    return InvalidContent("dicom-xml", f"Contenu « application/dicom+xml » illisible : {what}.")
