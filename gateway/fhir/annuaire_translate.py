"""What the national directory's API answers, as facts of our own directory.

Promises: persons and structures by their national numbers, never by the API's own ids; only an address marked as
MSSanté and inside its domains is a mailbox, in every spelling of the marks that was seen; what is inactive is not said.
Touches no socket, session or clock.

[IG annuaire; spec annuaire §2, §3, §5; spec mssante §4.1]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.fhir.translate.elements import codings, identifiers
from gateway.identifiers import Finess, IdNatPs, MssanteAddress
from gateway.identifiers.systems import system_named
from gateway.rcp.directory import EntryFacts, MailboxFacts, OrganisationFacts, PracticeFacts, ProfessionalFacts
from gateway.terminology import code_list

__all__ = ["entry_of", "mailboxes_of", "number_of"]

_EMAIL_TYPE: Final = "https://hl7.fr/ig/fhir/core/StructureDefinition/fr-core-contact-point-email-type"
_METADATA: Final = "as-ext-mailbox-mss-metadata"
_MSSANTE: Final = "MSSANTE"
_OF_PERSONS: Final = frozenset({"PER", "CAB"})
_OF_PLACES: Final = frozenset({"ORG", "APP"})


def number_of(practitioner: Mapping[str, Any]) -> IdNatPs | None:
    """Read the national identifier of a Practitioner; an RPPS stands for it."""
    for said in identifiers(practitioner.get("identifier")):
        if system_named(said.system, said.kind) in {"IDNPS", "RPPS"}:
            return IdNatPs.from_wire(said.value)
    return None


def entry_of(
    practitioner: Mapping[str, Any],
    roles: Iterable[Mapping[str, Any]],
    organisations: Mapping[str, Mapping[str, Any]],
) -> EntryFacts | None:
    """Say all of one professional; `None` for one without an RPPS or a name.

    Parameters
    ----------
    organisations
        By their reference, ``Organization/…``.
    """
    number = number_of(practitioner)
    name = next((one for one in practitioner.get("name") or () if one.get("family")), None)
    if number is None or number.rpps is None or number.faults or name is None:
        return None
    places: dict[str, OrganisationFacts] = {}
    practices: dict[str, PracticeFacts] = {}
    boxes: dict[str, MailboxFacts] = {}
    for role in roles:
        if not role.get("active", True):
            continue
        place = _place(organisations.get(str((role.get("organization") or {}).get("reference"))))
        if place is not None:
            places[place.finess] = place
            practices[place.finess] = PracticeFacts(finess=place.finess)
        for box in mailboxes_of(role, _OF_PERSONS, finess=place.finess if place else None):
            boxes.setdefault(box.address, box)
    for box in mailboxes_of(practitioner, _OF_PERSONS):
        boxes.setdefault(box.address, box)
    professional = ProfessionalFacts(
        rpps=number.rpps.value,
        family=name["family"],
        given=" ".join(name.get("given") or ()),
        title=next(iter(name.get("suffix") or ()), None),
        profession=_qualified(practitioner, "TRE_G15") or "10",
        speciality=_qualified(practitioner, "TRE_R38"),
        practices=tuple(practices.values()),
        mailboxes=tuple(boxes.values()),
    )
    return EntryFacts(
        professional=professional, places=tuple(places.values()), active=practitioner.get("active", True) is not False
    )


def mailboxes_of(
    node: Mapping[str, Any], kinds: frozenset[str], *, finess: str | None = None
) -> Iterator[MailboxFacts]:
    """Give the MSSanté mailboxes of a resource; an ordinary e-mail is none, whatever stands beside it."""
    default = min(kinds, key=lambda kind: kind not in {"PER", "ORG"})
    for telecom in node.get("telecom") or ():
        if telecom.get("system") != "email" or not telecom.get("value"):
            continue
        metadata = _extension(telecom, _METADATA)
        marked = _MSSANTE in _codes(_extension(telecom, _EMAIL_TYPE))
        address = MssanteAddress.from_wire(telecom["value"])
        if address.faults or not (marked or metadata is not None):
            continue
        said = _codes(_extension(metadata, "type")) if metadata is not None else []
        # The list of systems of messaging has been seen in place of the list of mailboxes.
        kind = next((code for code in said if code in code_list("TRE_R257")), default)
        if kind in kinds:
            yield MailboxFacts(
                address=address.value,
                kind=kind,
                finess=finess,
                preferred=str(telecom.get("rank")) == "1",
                confidential=_flag(metadata, "listeRouge"),
                paperless=_flag(metadata, "digitization"),
            )


def _place(tree: Mapping[str, Any] | None) -> OrganisationFacts | None:
    if tree is None or not tree.get("name") or tree.get("active") is False:
        return None
    for said in identifiers(tree.get("identifier")):
        number = Finess.from_wire(said.value)
        if system_named(said.system, said.kind) in {"FINEG", "FINEJ"} and not set(number.faults) - {"finess-lettre"}:
            break
    else:
        return None
    address: Mapping[str, Any] = next(iter(tree.get("address") or ()), {})
    phones = (one.get("value") for one in tree.get("telecom") or () if one.get("system") == "phone")
    return OrganisationFacts(
        finess=number.value,
        name=tree["name"],
        city=address.get("city"),
        postal_code=address.get("postalCode"),
        address_line=", ".join(address.get("line") or ()) or None,
        phone=next(phones, None),
        mailboxes=tuple(mailboxes_of(tree, _OF_PLACES)),
    )


def _qualified(practitioner: Mapping[str, Any], name: str) -> str | None:
    """Return the first qualification of a list that we know, by the name of the list or its canonical."""
    known = code_list(name)
    prefix = name.replace("_", "-")
    for held in practitioner.get("qualification") or ():
        for coding in codings(held.get("code")):
            system = str(coding.get("system"))
            if (system == known.system or system.rpartition("/")[2].startswith(prefix)) and coding.get("code") in known:
                return str(coding["code"])
    return None


def _extension(node: Mapping[str, Any], url: str) -> Mapping[str, Any] | None:
    found: Sequence[Mapping[str, Any]] = [
        one for one in node.get("extension") or () if one.get("url") == url or str(one.get("url")).endswith("/" + url)
    ]
    return found[0] if found else None


def _flag(node: Mapping[str, Any] | None, name: str) -> bool | None:
    said = (_extension(node or {}, name) or {}).get("valueBoolean")
    return said if isinstance(said, bool) else None


def _codes(extension: Mapping[str, Any] | None) -> list[str]:
    """Codes of a value in each of the forms in which they were published."""
    if extension is None:
        return []
    concept = extension.get("valueCodeableConcept") or {}
    said = [*(concept.get("coding") or ()), extension.get("valueCoding") or {}]
    return [*(str(one["code"]) for one in said if one.get("code")), *filter(None, [extension.get("valueCode")])]
