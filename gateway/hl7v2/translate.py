"""From the segments of MDM or ORU to what its sender asks: new, replaced or withdrawn, and the documents themselves.

Promises: pure. What the French volet demands of a receiver is judged (message, version, profile, the coherence of
event, ORC-1 and OBX-11, identifiers that message and document share); what its own official examples get wrong is read
all the same and remarked (`Request.notes`). ``strict`` takes the matrix of flags and the list of mandatory ones to the
letter. Whose the document is, and whether it may replace another, is `gateway.rcp.received`'s to say. Recipients are
judged and not kept: to receive a document is not to send it on.

Sources: [CI-SIS Transmission de CDA] 2.1 (profile T) and its counterpart for LPS 1.1 (profile L), spec mssante 3, 7.2,
7.4 X25 to X31.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from gateway.documents import cda_header
from gateway.errors import InvalidContent, Unsupported
from gateway.hl7v2.flags import ALIASES, FLAGS, MAILS, rule_of
from gateway.hl7v2.segments import Head, Message, Segment
from gateway.rcp.received import DocumentHeader

__all__ = ["Act", "Request", "read"]

Act = Literal["nouveau", "remplacement", "retrait"]

#: Message → version of HL7 and the profiles that it may follow.
_MESSAGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {"MDM": ("2.6", ("T", "L")), "ORU": ("2.5", ("T",))}
#: Event → what it asks for; in ORU the event says nothing of it.
_EVENTS: Final[Mapping[str, Mapping[str, Act | None]]] = {
    "MDM": {"T02": "nouveau", "T10": "remplacement", "T04": "retrait"},
    "ORU": {"R01": None},
}
_ORDERS: Final[Mapping[str, Act]] = {"NW": "nouveau", "RO": "remplacement", "CA": "retrait"}
_RESULTS: Final[Mapping[str, Act]] = {"F": "nouveau", "C": "remplacement", "D": "retrait"}
_PROFILES: Final[Mapping[str, tuple[str, str]]] = {
    # MSH-21.2 → profile and its version
    "CISIS_CDA_HL7_V2": ("T", "2.1"),
    "CISIS_CDA_HL7_LPS": ("L", "1.1"),
}
_PROCESSING: Final = frozenset({"P", "T", "D"})
_DOCUMENTS_MAX: Final[Mapping[str, int]] = {"MDM": 1, "ORU": 2}
_OID: Final = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+")
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_CONTROL_ID_CHARACTERS: Final = 199


class Request(Struct, frozen=True, kw_only=True):
    """What the sender of a message asks for.

    Attributes
    ----------
    profile
        ``T`` (from who writes documents) or ``L`` (from who received them by mail).
    documents
        One, or two forms of the same content (ORU).
    flags
        Metadata by name (`gateway.hl7v2.flags.FLAGS`), those that were said.
    rule
        Of the matrix; none outside it.
    notes
        What was read although it is not as the profile writes it.
    """

    profile: str
    act: Act
    documents: tuple[tuple[DocumentHeader, bytes], ...]
    flags: Mapping[str, bool]
    rule: str | None
    notes: tuple[str, ...]


class _Found(NamedTuple):
    header: DocumentHeader
    content: bytes
    where: str


def read(message: Message, *, strict: bool = False, production: bool = False) -> Request:
    """Read what a message asks for.

    Parameters
    ----------
    strict
        Refuse what is outside the matrix of flags, and a mandatory flag that is missing.
    production
        Refuse what says that it is a test (MSH-11).

    Raises
    ------
    Unsupported
        ``hl7-message``, ``hl7-evenement``, ``hl7-version``, ``hl7-traitement``.
    InvalidContent
        ``hl7-champ-absent``, ``hl7-type-de-donnee``, ``hl7-valeur``, ``hl7-cardinalite``, ``hl7-segment-absent``,
        ``hl7-incoherence``, ``hl7-matrice``, ``hl7-patient-different``, ``hl7-document-different``,
        ``documents-differents``, ``cda-remplace``; and those of `gateway.documents.cda_header.read`.
    """
    notes = list(message.notes)
    _judge_head(message.head, production=production)
    profile = _profile(message, notes)
    act, results = _act(message, profile)
    _judge_addresses(message.all("PRT"), notes)
    flags = _flags(message, notes)
    rule = rule_of(flags) if profile == "T" else None
    _judge_flags(profile, flags, rule, notes, strict=strict)
    documents = [_document(one) for one in results]
    for one in documents:
        _judge_patient(message, one, notes)
    if message.head.type == "MDM":
        documents = [_judge_txa(message, documents[0], act)]
    elif act == "remplacement" and any(one.header.replaces is None for one in documents):
        raise _version("Le document ne dit pas lequel il remplace (relatedDocument).", documents[0].where)
    _judge_same(documents)
    return Request(
        profile=profile,
        act=act,
        documents=tuple(dict.fromkeys((one.header, one.content) for one in documents)),
        flags=flags,
        rule=rule,
        notes=tuple(dict.fromkeys(notes)),
    )


def _judge_head(head: Head, *, production: bool) -> None:
    """Judge MSH in the order in which a reader needs it."""
    events = _EVENTS.get(head.type)
    if events is None:
        named = head.kind if head.kind != "illisible" else "MSH-9"
        raise Unsupported("hl7-message", f"Type de message non pris en charge : {named}.", expression="MSH^1^9")
    if head.event not in events:
        raise Unsupported("hl7-evenement", f"Évènement non pris en charge : {head.kind}.", expression="MSH^1^9")
    if not head.version:
        raise _missing("MSH-12", "MSH^1^12")
    version, _ = _MESSAGES[head.type]
    if head.version != version:
        text = f"Version non prise en charge : {head.type} se lit en version {version}."
        raise Unsupported("hl7-version", text, expression="MSH^1^12")
    if not head.control_id:
        raise _missing("MSH-10", "MSH^1^10")
    if len(head.control_id) > _CONTROL_ID_CHARACTERS:
        raise _data_type(f"MSH-10 dépasse {_CONTROL_ID_CHARACTERS} caractères.", "MSH^1^10")
    if head.processing not in _PROCESSING or (production and head.processing != "P"):
        text = "Mode de traitement (MSH-11) refusé par cette passerelle."
        raise Unsupported("hl7-traitement", text, expression="MSH^1^11")


def _profile(message: Message, notes: list[str]) -> str:
    msh, (_, profiles) = message.segments[0], _MESSAGES[message.head.type]
    said = [(msh.of(one, 1), msh.of(one, 2).replace(" ", ""), one) for one in msh.repetitions(21)]
    if not said:
        raise _missing("MSH-21", "MSH^1^21")
    known = [(_PROFILES[name], number, one) for number, name, one in said if name in _PROFILES]
    if not known or known[0][0][0] not in profiles:
        raise _value("Profil (MSH-21) inconnu, ou qui n’est pas celui de ce message.", "MSH^1^21")
    (profile, wanted), number, components = known[0]
    if number != wanted:
        notes.append("msh-21-version")
    if any(one != one.strip() for one in components[:2]):
        notes.append("espaces")
    return profile


def _act(message: Message, profile: str) -> tuple[Act, list[Segment]]:
    """Judge that event, ORC-1 and OBX-11 ask for the same; give it, with the segments of the documents."""
    found = [one for one in message.all("OBX") if one.component(2).upper() == "ED"]
    if profile == "L":
        found = found[:1]  # the second is the mail that brought it
    results = [one for one in found if _name(one) not in MAILS]
    if not results:
        raise _absent("OBX", "Le message ne porte aucun document (OBX de type ED).")
    most = _DOCUMENTS_MAX[message.head.type]
    if len(results) > most:
        text = f"Trop de documents : {len(results)}, limite {most} dans {message.head.type}."
        raise InvalidContent("hl7-cardinalite", text, expression=f"OBX^{results[most].position}", rule=True)
    asked = [_EVENTS[message.head.type][message.head.event]]
    orders = message.all("ORC")
    if not orders:
        raise _absent("ORC", "Le segment ORC est absent.")
    asked += [_coded(one, 1, _ORDERS) for one in orders]
    asked += [_coded(one, 11, _RESULTS) for one in results]
    wanted = {one for one in asked if one is not None}
    if len(wanted) != 1:
        text = "L’évènement, ORC-1 et OBX-11 ne demandent pas la même chose."
        raise InvalidContent("hl7-incoherence", text, expression="ORC^1^1", rule=True)
    return wanted.pop(), results


def _coded(segment: Segment, number: int, table: Mapping[str, Act]) -> Act:
    said = segment.component(number)
    where = f"{segment.name}^{segment.position}^{number}"
    if not said:
        raise _missing(f"{segment.name}-{number}", where)
    if said not in table:
        raise _value(f"{segment.name}-{number} : attendu {', '.join(table)}.", where)
    return table[said]


def _name(segment: Segment) -> str:
    """What an OBX is about: OBX-3.1 without the spaces and by the name that the table has."""
    said = segment.component(3).replace(" ", "")
    return ALIASES.get(said, said)


def _flags(message: Message, notes: list[str]) -> dict[str, bool]:
    flags: dict[str, bool] = {}
    for one in message.all("OBX"):
        name = _name(one)
        if name not in FLAGS["T"]:
            continue
        where = f"OBX^{one.position}^5"
        said = one.component(5).upper()
        if said not in {"Y", "N"}:
            raise _value(f"{name} : attendu Y ou N.", where)
        if flags.setdefault(name, said == "Y") != (said == "Y"):
            text = f"{name} est dit deux fois, autrement."
            raise InvalidContent("hl7-cardinalite", text, expression=where, rule=True)
        if one.component(3) != name:
            notes.append("nom-de-metadonnee")
        held = [part for number in (3, 5) for parts in one.repetitions(number) for part in parts]
        if any(part != part.strip() for part in held):
            notes.append("espaces")
    return flags


def _judge_flags(profile: str, flags: Mapping[str, bool], rule: str | None, notes: list[str], *, strict: bool) -> None:
    missing = [name for name in FLAGS[profile] if name not in flags]
    if missing and strict:
        raise _missing(missing[0], "OBX")
    notes += ["metadonnee-absente"] if missing else []
    if profile == "L" or rule is not None:
        return
    if strict:
        text = "Les métadonnées du document ne suivent aucune règle de la matrice (M1, M2, M3)."
        raise InvalidContent("hl7-matrice", text, expression="OBX", rule=True)
    notes.append("matrice")


def _judge_addresses(participations: Sequence[Segment], notes: list[str]) -> None:
    """Judge that each participation has one address at most, and where it stands (X26)."""
    for one in participations:
        own = list(_addresses(one, 15, 15))
        found = own or list(_addresses(one, 14, 17))
        if len(found) > 1 or any(address.count("@") > 1 for address in found):
            raise _data_type("Une participation (PRT) porte plusieurs adresses.", f"PRT^{one.position}^15")
        if found and not own:
            notes.append("prt-15-decale")
        elif found and one.component(15, 3) != "X.400":
            notes.append("prt-15-type")


def _addresses(segment: Segment, first: int, last: int) -> Iterator[str]:
    for number in range(first, last + 1):
        for components in segment.repetitions(number):
            for component in components:
                if "@" in component:
                    yield segment.text(component).strip()


def _document(segment: Segment) -> _Found:
    where = f"OBX^{segment.position}^5"
    content = _data(segment, where)
    try:
        return _Found(cda_header.read(content), content, where)
    except InvalidContent as error:
        raise InvalidContent(error.code, error.text, expression=where, rule=True) from None


def _data(segment: Segment, where: str) -> bytes:
    """Return the bytes of OBX-5, which stand in its fifth component, in base64 that may be wrapped (X25)."""
    held = segment.repetitions(5)
    if not held:
        raise _missing("OBX-5", where)
    if len(held) != 1 or segment.of(held[0], 4).lower() != "base64":
        raise _data_type("OBX-5 : attendu ^text^XML^Base64^données.", where)
    if len(held[0]) < 5 or not held[0][4]:
        raise _missing("OBX-5.5", where)
    try:
        return base64.b64decode("".join(segment.text(held[0][4]).split()), validate=True)
    except (binascii.Error, ValueError):
        raise _data_type("Le base64 de OBX-5 est illisible.", where) from None


def _judge_patient(message: Message, found: _Found, notes: list[str]) -> None:
    """Judge that PID-3 and the document name the same patient (H07): one number more in one of them is no other one."""
    pid = message.first("PID")
    if pid is None:
        raise _absent("PID", "Le segment PID est absent.")
    said = pid.repetitions(3)
    if not said:
        raise _missing("PID-3", "PID^1^3")
    message_ids = {(root, pid.of(one, 1)) for one in said if _OID.fullmatch(root := pid.of(one, 4, 2))}
    document_ids = {(one.root, one.extension) for one in found.header.patient_ids}
    shared = {root for root, _ in message_ids} & {root for root, _ in document_ids}
    theirs, ours = ({one for one in those if one[0] in shared} for those in (message_ids, document_ids))
    if not shared or theirs != ours:
        text = "Les identifiants du patient (PID-3) ne sont pas ceux du document."
        raise InvalidContent("hl7-patient-different", text, expression="PID^1^3", rule=True)
    if message_ids != document_ids:
        notes.append("pid-3-partiel")


def _judge_txa(message: Message, found: _Found, act: Act) -> _Found:
    """Judge the identifiers of an MDM against those of its document; give it with the one that it replaces."""
    txa = message.first("TXA")
    if txa is None:
        raise _absent("TXA", "Le segment TXA est absent.")
    identifier, parent = (_entity(txa, number) for number in (12, 13))
    if identifier is None:
        raise _missing("TXA-12", "TXA^1^12")
    if identifier.lower() != found.header.unique_id.lower():
        text = "L’identifiant du document (TXA-12) n’est pas le sien."
        raise InvalidContent("hl7-document-different", text, expression="TXA^1^12", rule=True)
    if act == "nouveau" and parent is not None:
        text = "Un document nouveau (T02) n’en remplace aucun : TXA-13 doit être vide."
        raise InvalidContent("hl7-incoherence", text, expression="TXA^1^13", rule=True)
    if act != "remplacement":
        return found  # TXA-13 of a deletion is not required, and official examples fill it
    if parent is None:
        raise _missing("TXA-13", "TXA^1^13")
    if found.header.replaces is not None and found.header.replaces.lower() != parent.lower():
        raise _version("Le document ne remplace pas celui que désigne TXA-13.", "TXA^1^13")
    return found._replace(header=replace(found.header, replaces=found.header.replaces or parent))


def _entity(segment: Segment, number: int) -> str | None:
    """Return an identifier as the header of a CDA has it: ``root`` or ``root^extension``."""
    said = segment.repetitions(number)
    if not said:
        return None
    own, root = segment.of(said[0], 1), segment.of(said[0], 3)
    if _is_root(root):
        return f"{root}^{own}" if own else root
    if not _is_root(own):
        where = f"{segment.name}^{segment.position}^{number}"
        raise _data_type(f"{segment.name}-{number} : attendu un OID, ou extension^^OID^ISO.", where)
    return own


def _is_root(text: str) -> bool:
    return _OID.fullmatch(text) is not None or _UUID.fullmatch(text) is not None


def _judge_same(documents: Sequence[_Found]) -> None:
    """Judge that two documents of one message are one content in two forms (X31)."""
    first = documents[0]
    for other in documents[1:]:
        if other.content == first.content:
            continue
        facts = [(set(one.patient_ids), one.type_code, one.author, one.created) for one in (first.header, other.header)]
        if facts[0] != facts[1] or first.header.format == other.header.format:
            text = "Les deux documents du message ne sont pas deux formes du même contenu."
            raise InvalidContent("documents-differents", text, expression=other.where, rule=True)


def _missing(name: str, where: str) -> InvalidContent:
    return InvalidContent("hl7-champ-absent", f"{name} est obligatoire.", expression=where, rule=True)


def _absent(name: str, text: str) -> InvalidContent:
    return InvalidContent("hl7-segment-absent", text, expression=f"{name}^1", rule=True)


def _data_type(text: str, where: str) -> InvalidContent:
    return InvalidContent("hl7-type-de-donnee", text, expression=where, rule=True)


def _value(text: str, where: str) -> InvalidContent:
    return InvalidContent("hl7-valeur", text, expression=where, rule=True)


def _version(text: str, where: str) -> InvalidContent:
    return InvalidContent("cda-remplace", text, expression=where, rule=True)
