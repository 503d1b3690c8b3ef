"""How what a client sent and what the gateway says lie over one another in one resource [DESIGN §3, Representations].

Promises: a client's elements stay as he sent them while they still say what the record, the session or the dossier
says; of what no longer does, the least is replaced; extensions, narratives and everything that the gateway does not
speak of survive whatever wire changes the rest. Laying twice gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from gateway.fhir import search_columns
from gateway.fhir.document import Tree
from gateway.fhir.translate import directory, dossier, meeting
from gateway.fhir.translate.patient import INS_SYSTEMS, patient_facts, patient_tree
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpSession
from gateway.model.person import PatientRecord
from gateway.rcp.facts import PatientFacts
from gateway.rcp.identity import say

__all__ = ["lay", "patient_over", "request_over", "session_over", "task_over"]


def lay(base: Tree | None, ours: Mapping[str, Any]) -> Tree:
    """Lay our elements over what stands below; both keep their order."""
    laid = dict(base or {})
    laid.update(ours)
    return laid


# Element of Patient → the columns of the record that it says.
_PATIENT_ELEMENTS: dict[str, tuple[str, ...]] = {
    "name": ("birth_family", "given", "used_family", "used_given"),
    "gender": ("sex",),
    "birthDate": ("birth_date",),
    "identifier": ("ins_value", "ins_qualified"),
    "extension": ("identity_status", "birth_place"),
    "active": ("active",),
    "generalPractitioner": ("treating_idnps",),
}


def patient_over(base: Tree, row: PatientRecord, facts: PatientFacts | None = None) -> Tree:
    """Replace of a Patient only the elements that no longer say what the record says (another wire changed it).

    Parameters
    ----------
    facts
        What ``base`` says, when it was just read.
    """
    said = say(facts or patient_facts(base, _never))
    stale = {
        element
        for element, names in _PATIENT_ELEMENTS.items()
        if any(said[name] != getattr(row, name) for name in names)
    }
    # A physician named by a literal reference was resolved when the Patient was written: it cannot be read here.
    if said["treating_idnps"] is None and "generalPractitioner" in base:
        stale.discard("generalPractitioner")
    if not stale:
        return dict(base)
    ours = patient_tree(row)
    for element, is_ours in _PATIENT_PARTS.items():
        if element in stale and element in base:
            ours[element] = [*ours.get(element, []), *(node for node in base[element] if not is_ours(node))]
    return lay(
        {name: value for name, value in base.items() if name not in stale},
        {name: value for name, value in ours.items() if name in stale},
    )


def _is_own_identifier(node: Mapping[str, Any]) -> bool:
    kinds = {coding.get("code") for coding in node.get("type", {}).get("coding", ())}
    return node.get("system") in INS_SYSTEMS or "PI" in kinds


def _is_own_extension(node: Mapping[str, Any]) -> bool:
    return str(node.get("url", "")).rpartition("/")[2] in {"fr-core-identity-reliability", "patient-birthPlace"}


#: Repeating elements of which only a part is said by the record: the rest of the client's list survives.
_PATIENT_PARTS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "identifier": _is_own_identifier,
    "extension": _is_own_extension,
}


def _never(_reference: str) -> None:
    return None


def session_over(base: Tree | None, row: RcpSession) -> Tree:
    """Lay a session over what its establishment's software sent: its own words stay while they still say it."""
    ours = directory.appointment(row)
    if base is None:
        return ours
    said = meeting.hours(base)
    laid: Tree = {"status": ours["status"]} if meeting.STATES.get(base["status"]) != row.state else {}
    if said != (row.starts_at, row.ends_at):
        laid |= {name: ours[name] for name in ("description", "start", "end", "minutesDuration")}
    laid["identifier"] = _merged(base.get("identifier", []), ours["identifier"])
    gone = {
        str(one.practitioner_id) for one in row.rcp.members if one.role == "coordonnateur" and one.until is not None
    }
    gone -= {str(one.practitioner_id) for one in row.rcp.members if one.role == "coordonnateur" and one.until is None}
    there = [one for one in base["participant"] if not _actor(one) & {f"Practitioner/{key}" for key in gone}]
    known = frozenset[Any]().union(*map(_actor, there))
    [agenda] = ours["supportingInformation"]
    beside = base.get("supportingInformation", [])
    if not any(one.get("reference") == agenda["reference"] for one in beside):
        laid["supportingInformation"] = [*beside, agenda]
    laid["participant"] = [*there, *(one for one in ours["participant"] if not _actor(one) & known)]
    return lay({**base, **{name: value for name, value in ours.items() if name not in base}}, laid)


def _actor(node: Mapping[str, Any]) -> frozenset[Any]:
    """What a participant is called: by its id here, by its business identifier."""
    actor = node.get("actor", {})
    return frozenset({actor.get("reference"), _identity(actor.get("identifier", {}))} - {None, (None, None)})


#: Elements of a Task that a client says in his own words, and the gateway only where he said nothing.
_TASK_THEIRS = ("groupIdentifier", "intent", "code", "authoredOn", "requester")
_URGENT = frozenset({"urgent", "asap", "stat"})


def task_over(base: Tree | None, ours: Tree) -> Tree:
    """Lay where a dossier stands over what a client said of it."""
    if base is None:
        return ours
    laid = {name: value for name, value in ours.items() if name not in _TASK_THEIRS or not _says(base, name)}
    for name, key in (("identifier", _identity), ("input", _input_kind), ("output", _output_target)):
        laid[name] = _merged(base.get(name, []), ours.get(name, []), key)
    if not laid["output"]:
        del laid["output"]
    for name in ("for", "focus"):
        if _refers_alike(base.get(name), ours[name]):
            del laid[name]
    others = [one for one in base.get("basedOn", ()) if one.get("reference") != ours["basedOn"][0]["reference"]]
    if any(_refers_alike(one, ours["basedOn"][0]) for one in base.get("basedOn", ())):
        del laid["basedOn"]
    else:
        laid["basedOn"] = [*ours["basedOn"], *others]
    if (base.get("priority") in _URGENT) == (ours["priority"] in _URGENT) and "priority" in base:
        del laid["priority"]
    return lay(base, laid)


def _says(base: Tree, name: str) -> bool:
    return name in base or f"_{name}" in base


def _refers_alike(theirs: Any, ours: Tree) -> bool:
    """Whether a client's reference names what ours does, with whatever he says beside it."""
    return (
        isinstance(theirs, dict)
        and theirs.get("reference") == ours["reference"]
        and theirs.get("identifier", ours.get("identifier")) == ours.get("identifier")
    )


def _output_target(node: Mapping[str, Any]) -> Any:
    return node.get("valueReference", {}).get("reference", id(node))


def request_over(base: Tree | None, row: Dossier) -> Tree:
    """Lay an inscription over its request: the status, the date once moved, and the number if it had none."""
    ours = dossier.service_request(row)
    if base is None:
        return ours
    laid: Tree = {"status": ours["status"]}
    said = base.get("occurrenceDateTime") or base.get("occurrencePeriod", {}).get("start")
    if not isinstance(said, str) or not _names(said, row.session.starts_at):
        laid["occurrenceDateTime"] = ours["occurrenceDateTime"]
        base = {name: value for name, value in base.items() if name != "occurrencePeriod"}
    laid["identifier"] = _merged(base.get("identifier", []), ours["identifier"])
    return lay(base, laid)


def _names(text: str, moment: datetime) -> bool:
    low, high = search_columns.date_interval(text)
    return low <= moment < high


def _identity(node: Mapping[str, Any]) -> Any:
    return node.get("system"), node.get("value")


def _input_kind(node: Mapping[str, Any]) -> Any:
    return [coding.get("code") for coding in node.get("type", {}).get("coding", ())]


def _merged(
    theirs: Iterable[Tree], ours: Iterable[Tree], key: Callable[[Mapping[str, Any]], Any] = _identity
) -> list[Tree]:
    """Keep what was there and put ours in the place of its equal, or at the end."""
    laid = list(theirs)
    for node in ours:
        place = next((index for index, there in enumerate(laid) if key(there) == key(node)), None)
        if place is None:
            laid.append(node)
        elif key is _input_kind and not _refers_alike(laid[place].get("valueReference"), node["valueReference"]):
            laid[place] = node
    return laid
