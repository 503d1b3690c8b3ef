"""Shapes of a French CDA R2 document that every kind of document uses: elements, codes, people, entries, narrative.

Promises: elements in the order that the schema wants; a null flavour wherever a fact is missing and the standard wants
an element; entry ids that are a function of the document's id and of their rank, so that the same facts always give the
same bytes. Not promised: that a document made of these shapes is a FRCP; see `gateway.documents.frcp`.

Sources: `[CI-SIS structuration minimale]` for the header, `[CI-SIS modèles de contenus]` for the entries.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from itertools import count
from uuid import NAMESPACE_OID, uuid5
from zoneinfo import ZoneInfo

from msgspec import Struct

from gateway.documents.cda_writing import Child, Xml, document, el, table
from gateway.documents.rows import Part, clean
from gateway.rcp.report_content import Address, CodedValue, Identifier, Organisation, Person
from gateway.terminology import code_list, concept

__all__ = [
    "PROBLEM_TEMPLATES",
    "SYSTEM_NAMES",
    "Code",
    "Element",
    "Elements",
    "Entries",
    "address",
    "assigned_entity",
    "cd",
    "code_element",
    "document",
    "el",
    "identifier",
    "in_list",
    "in_words",
    "instant",
    "interval",
    "listed",
    "name",
    "narrative",
    "null",
    "of_list",
    "organisation",
    "partial",
    "reference",
    "telecom",
    "templates",
    "treatment_code",
    "yes_no",
]

IDNPS_ROOT = "1.2.250.1.71.4.2.1"
IDNST_ROOT = "1.2.250.1.71.4.2.2"
TA = "1.2.250.1.213.1.1.4.322"
LOINC = "2.16.840.1.113883.6.1"
SNOMED = "2.16.840.1.113883.6.96"
TNM = "2.16.840.1.113883.15.6"
CIM10 = "2.16.840.1.113883.6.3"
CIMO3 = "2.16.840.1.113883.6.43.1"

SYSTEM_NAMES = {
    TA: "TA_ASIP",
    LOINC: "LOINC",
    SNOMED: "SNOMED CT",
    TNM: "TNM_UICC",
    CIM10: "CIM-10",
    CIMO3: "CIM-O3",
    "2.16.840.1.113883.3.26.1.1": "NCIT",
    "1.2.250.1.213.3.3.13": "TRE_R213-ModePriseEnCharge",
    "2.16.840.1.113883.5.25": "Confidentiality",
    "2.16.840.1.113883.5.7": "ActPriority",
}
COMPLETED = el("statusCode", code="completed")
HOSPITAL = CodedValue("ETABLISSEMENT", "1.2.250.1.213.1.1.4.9", "Etablissement de santé")

Element = Xml
Elements = list[Element]


class Code(Struct, frozen=True):
    """A code fixed by the document's model, with its label in the national examples."""

    code: str
    system: str
    label: str


@lru_cache(maxsize=256)
def null(tag: str, flavor: str = "UNK", *, xsi: str | None = None) -> Element:
    """Make an element that says why it says nothing."""
    return el(tag, xsi=xsi, nullFlavor=flavor)


@lru_cache(maxsize=256)
def templates(*roots: str) -> Element:
    """Make the template ids of a section or of an entry, one after the other."""
    return Xml("".join([el("templateId", root=root) for root in roots]))


def identifier(value: Identifier, tag: str = "id") -> Element:
    """Make an instance identifier."""
    return el(tag, root=value.root, extension=value.extension)


@lru_cache(maxsize=4096)
def code_element(value: CodedValue | Code, tag: str = "code", *children: Child, xsi: str | None = None) -> Element:
    """Make a coded element with its label and the usual name of its system."""
    return el(
        tag,
        *children,
        xsi=xsi,
        code=value.code,
        codeSystem=value.system,
        codeSystemName=SYSTEM_NAMES.get(value.system),
        displayName=clean(value.label),
    )


@lru_cache(maxsize=256)
def instant(value: datetime, zone: ZoneInfo) -> str:
    """Write an instant as ``YYYYMMDDhhmmss+0100`` in the zone. [CI-SIS structuration minimale, TS]."""
    return f"{value.astimezone(zone):%Y%m%d%H%M%S%z}"


def partial(value: str) -> str:
    """Write an ISO date, possibly partial, as 4, 6 or 8 digits."""
    return value.replace("-", "")


def interval(low: str | None, high: str | None = None, *, flavor: str = "UNK") -> Element:
    """Make an ``effectiveTime`` of two bounds; an unknown lower bound says so, an unknown upper one is absent."""
    return el(
        "effectiveTime",
        el("low", value=low) if low else null("low", flavor),
        el("high", value=high) if high else None,
    )


@lru_cache(maxsize=1024)
def telecom(phone: str | None) -> Element:
    """Make the telephone; only digits and a leading plus are kept."""
    number = re.sub(r"[^\d+]", "", phone or "")
    return el("telecom", value=f"tel:{number}", use="WP") if number else null("telecom", "NAV")


@lru_cache(maxsize=1024)
def address(value: Address | None) -> Element:
    """Make the address as up to seven lines; the last holds postal code and city."""
    if value is None:
        return null("addr", "NAV")
    last = " ".join(p for p in (value.postal_code, value.city) if p)
    lines = [clean(line) for line in (*value.lines[:6], last) if clean(line)]
    return el("addr", *(el("streetAddressLine", text=line) for line in lines)) if lines else null("addr", "NAV")


@lru_cache(maxsize=1024)
def name(person: Person) -> Element:
    """Make a professional's name: one family name, at most one given name, prefix and suffix of the national lists."""
    return el(
        "name",
        el("prefix", text=person.civility) if person.civility else None,
        el("given", text=clean(person.given)) if person.given else None,
        el("family", text=clean(person.family)),
        el("suffix", text=person.title) if person.title else None,
    )


@lru_cache(maxsize=1024)
def organisation(value: Organisation, tag: str) -> Element:
    """Make a structure with its number, name, telephone, address and practice setting."""
    return el(
        tag,
        el("id", root=IDNST_ROOT, extension=value.idnst) if value.idnst else None,
        el("name", text=clean(value.name)),
        telecom(value.phone),
        address(value.address),
        code_element(value.setting or HOSPITAL, "standardIndustryClassCode"),
    )


@lru_cache(maxsize=1024)
def assigned_entity(
    person: Person,
    *,
    tag: str = "assignedEntity",
    organisation_tag: str = "representedOrganization",
    person_tag: str = "assignedPerson",
    otherwise: Organisation | None = None,
    classCode: str | None = None,  # noqa: N803 - the attribute's own name
) -> Element:
    """Make a professional in a role; someone unknown to the RPPS has neither id nor code.

    The schema wants an id of whoever acts in the document (all but a mere participant): it is null when unknown.
    ``otherwise`` is the structure to name when the person's own is not known and the model wants one.
    """
    structure = person.organisation or otherwise
    unknown = None if tag == "associatedEntity" else null("id")
    return el(
        tag,
        el("id", root=IDNPS_ROOT, extension=person.idnps) if person.idnps else unknown,
        code_element(person.profession) if person.profession and person.idnps else None,
        address(structure.address if structure else None),
        telecom(structure.phone if structure else None),
        el(person_tag, name(person)),
        organisation(structure, organisation_tag) if structure else None,
        classCode=classCode,
    )


@lru_cache(maxsize=1024)
def reference(anchor: str, tag: str = "text") -> Element:
    """Make the pointer from an entry to the row of the narrative that says the same."""
    return el(tag, el("reference", value=f"#{anchor}"))


def narrative(part: Part) -> Element:
    """Make the ``text`` of a section: a table of labels and anchored texts."""
    return el("text", table((row.label, row.anchor, row.text) for row in part.rows))


@lru_cache(maxsize=8)
def yes_no(value: bool | None) -> Element:  # noqa: FBT001 - the answer to a question is a value
    """Make a boolean ``value``."""
    return null("value", xsi="BL") if value is None else el("value", xsi="BL", value=str(value).lower())


def cd(value: CodedValue | None, *, anchor: str | None = None, flavor: str = "UNK") -> Element:
    """Make a coded ``value``; without a code, a null flavour that points at the words when there are some."""
    original = reference(anchor, "originalText") if anchor else None
    if value is None:
        return el("value", original, xsi="CD", nullFlavor="OTH" if anchor else flavor)
    return code_element(value, "value", original, xsi="CD")


def in_list(value: CodedValue | None, list_name: str) -> CodedValue | None:
    """Give the code with the label of its list; as it is when the list does not hold it, for our checks to refuse."""
    known = code_list(list_name).get(value.code) if value else None
    if value is None or known is None or known.oid != value.system:
        return value
    return CodedValue(known.code, known.oid, known.label)


def in_words(anchor: str) -> Element:
    """Make a ``value`` that only points at the words of the narrative, where the model has no code for them."""
    return el("value", reference(anchor, "originalText"), xsi="CD")


def of_list(list_name: str, code: str) -> CodedValue:
    """Give a code of one of our lists, with the list's own label."""
    found = concept(list_name, code)
    return CodedValue(found.code, found.oid or TA, found.label)


def listed(list_name: str, code: str) -> Element:
    """Make a coded ``value`` of one of our lists."""
    return cd(of_list(list_name, code))


def treatment_code(kind: CodedValue, anchor: str) -> Element:
    """Make the code of a treatment, by the national list, with the words that say more."""
    return code_element(in_list(kind, "FRCP-TypeTraitement") or kind, "code", reference(anchor, "originalText"))


class Entries:
    """Makes the coded entries of one document and numbers them.

    Parameters
    ----------
    document
        The document's id: entry ids are UUIDs of version 5 made from it and a rank.
    """

    def __init__(self, document: Identifier) -> None:
        self._space = uuid5(NAMESPACE_OID, f"{document.root}^{document.extension or ''}").bytes
        self._ranks = count(1)

    def id(self) -> Element:
        """Make the next entry id, as `uuid.uuid5` does."""
        made = sha1(b"%b%d" % (self._space, next(self._ranks)), usedforsecurity=False).hexdigest().upper()
        variant = _VARIANTS[made[16]]
        # No part of it needs an escape.
        return Xml(f'<id root="{made[:8]}-{made[8:12]}-5{made[13:16]}-{variant}{made[17:20]}-{made[20:32]}"/>')

    def observation(
        self,
        code: Code,
        anchor: str,
        value: Child,
        *relations: Child,
        when: Child = None,
        models: tuple[str, ...] = (),
        after: tuple[Child, ...] = (),
    ) -> Element:
        """Make a FR-Simple-Observation. [CI-SIS 1.2.250.1.213.1.1.3.48].

        ``models`` holds template ids beside the usual two, ``after`` what the schema wants between value and
        entryRelationship.
        """
        return el(
            "observation",
            templates(_OBSERVATION, "1.2.250.1.213.1.1.3.48", *models),
            self.id(),
            code_element(code),
            reference(anchor),
            COMPLETED,
            null("effectiveTime", "NAV") if when is None else when,
            value,
            *after,
            *relations,
            classCode="OBS",
            moodCode="EVN",
        )

    def comment(self, anchor: str) -> Element:
        """Make a FR-Commentaire-ER. [CI-SIS 1.2.250.1.213.1.1.3.32]."""
        return el(
            "act",
            templates(*_COMMENT),
            self.id(),
            code_element(Code("48767-8", LOINC, "Commentaire")),
            reference(anchor),
            COMPLETED,
            classCode="ACT",
            moodCode="EVN",
        )


PROBLEM_TEMPLATES = ("2.16.840.1.113883.10.20.1.28", "1.3.6.1.4.1.19376.1.5.3.1.4.5", "1.2.250.1.213.1.1.3.37")
_VARIANTS = {digit: "89AB"[int(digit, 16) & 3] for digit in "0123456789ABCDEF"}
_OBSERVATION = "1.3.6.1.4.1.19376.1.5.3.1.4.13"
_COMMENT = ("2.16.840.1.113883.10.20.1.40", "1.3.6.1.4.1.19376.1.5.3.1.4.2", "1.2.250.1.213.1.1.3.32")


def related(typeCode: str, *entries: Child, inverted: bool | None = None) -> list[Element]:  # noqa: N803 - the attribute's own name
    """Wrap each entry in an ``entryRelationship`` of that type, which is a word of ours."""
    flag = "" if inverted is None else f' inversionInd="{str(inverted).lower()}"'
    return [
        Xml(f'<entryRelationship typeCode="{typeCode}"{flag}>{entry}</entryRelationship>')
        for entry in entries
        if entry is not None
    ]
