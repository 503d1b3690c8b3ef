"""The fiche of a dossier: what is known of each field, from whom, and what its RCP still asks for.

A field is stated by the inscription and its tumour, by the form, by the resources that the inscription names, or by a
person at the portal. The last statement that changed something holds, whoever made it: nothing known is asked again,
and a source that repeats itself overrides nobody.

Promises: one rule of precedence for the page, the report and every wire; an edit writes who and when, is refused once
the report is validated, and never overwrites unseen what somebody else wrote meanwhile (two equal edits are one).
Not promised: that what is said is true; a value is of its national list (`gateway.rcp.fiche_fields`).

[CI-SIS FRCP 2022.01; spec features S0-063, S0-064, S0-069, S0-082]
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import Conflict, Forbidden, InvalidContent
from gateway.model.dossier import Dossier
from gateway.model.meeting import Rcp
from gateway.model.report import Report
from gateway.rcp import access, dossier_states, french
from gateway.rcp.clinical import form_of, form_values, tumour_of, tumour_values
from gateway.rcp.fiche_fields import Field, check, concept_of, field_named, fields
from gateway.rcp.imaging_awaited import Imagery, imagery
from gateway.rcp.step import Step

__all__ = [
    "URGENT",
    "FicheRules",
    "Statement",
    "edit",
    "editable",
    "held",
    "imagery_of",
    "in_words",
    "is_open",
    "label_of",
    "lacking",
    "missing",
    "missing_images",
    "noted",
    "reading_of",
    "require_enough",
    "require_labels",
    "rules_of",
    "statements",
    "take",
]

#: Built in beside the labels of an RCP (S0-064).
URGENT = "urgence"
#: Fields that are columns of the dossier.
_COLUMNS: Mapping[str, str] = {"titre": "label", "motif.question": "question"}
_MOTIVES = frozenset({"MED-235", "ORG-114", "ORG-115", "ORG-116"})


class Statement(Struct, frozen=True, kw_only=True):
    """What is known of one field.

    Parameters
    ----------
    source
        ``inscription``, ``tumeur``, ``formulaire``, ``rcp`` (its own settings), ``portail``, or the ``Type/id`` of the
        resource that says it.
    by, at
        Who said so, when a person did, and when.
    """

    value: Any
    source: str
    by: str | None = None
    at: datetime | None = None


class FicheRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one RCP asks of a fiche, and what is the same for all its dossiers.

    Parameters
    ----------
    obligatoires
        Keys of the fields without which a fiche is not complete.
    etiquettes, etiquettes_obligatoires
        Labels offered beside « urgence », and whether a dossier needs one.
    appareil, organes, soins, recours, pediatrique
        Said once for the RCP; a dossier may say otherwise.
    """

    obligatoires: tuple[str, ...] = ()
    etiquettes: tuple[str, ...] = ()
    etiquettes_obligatoires: bool = False
    appareil: str | None = None
    organes: tuple[str, ...] = ()
    soins: str | None = None
    recours: bool | None = None
    pediatrique: bool | None = None


def rules_of(rcp: Rcp) -> FicheRules:
    """Read the settings of an RCP.

    Raises
    ------
    InvalidContent
        ``reglage-invalide``: unknown setting, field or code.
    """
    try:
        rules = msgspec.convert(rcp.fiche or {}, FicheRules)
        for key in rules.obligatoires:
            field_named(key)
        _defaults(rules)
    except (msgspec.ValidationError, InvalidContent) as error:
        text = "Les réglages de la fiche de cette RCP ne sont pas valables."
        raise InvalidContent("reglage-invalide", text, expression="fiche", rule=True) from error
    return rules


def _defaults(rules: FicheRules) -> dict[str, Any]:
    said = {f"motif.{name}": getattr(rules, name) for name in ("appareil", "soins", "recours", "pediatrique")}
    said["motif.organes"] = list(rules.organes)
    found = {key: check(field_named(key), value) for key, value in said.items()}
    return {key: value for key, value in found.items() if value is not None}


def statements(dossier: Dossier) -> dict[str, Statement]:
    """Return what is known, by field; what was never said, or was erased, is not in it."""
    rcp, at = dossier.session.rcp, dossier.registered_at
    form = form_of(dossier)
    layers: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("rcp", {"motif.type": rcp.nature} | _defaults(rules_of(rcp))),
        ("inscription", {"motif.motifs": [dossier.reason_code]} if dossier.reason_code in _MOTIVES else {}),
        ("tumeur", tumour_values(tumour_of(dossier))),
        ("formulaire", form_values(form)),
    )
    found = {
        key: Statement(value=value, source=source, at=at) for source, said in layers for key, value in said.items()
    }
    if dossier.urgent:
        labels = found["etiquettes"].value if "etiquettes" in found else []
        found["etiquettes"] = Statement(value=[URGENT, *(one for one in labels if one != URGENT)], source="inscription")
    for key, kept in dossier.clinical.get("fiche", {}).items():
        if key in fields():
            found[key] = msgspec.convert(kept, Statement)
    for key, column in _COLUMNS.items():
        known = found.get(key)
        source = known.source if known is not None else "inscription"
        found[key] = Statement(value=getattr(dossier, column), source=source, by=known.by if known else None)
    return {key: one for key, one in found.items() if one.value not in (None, "", [])}


def reading_of(dossier: Dossier) -> str:
    """Name what somebody who reads the fiche now reads: equal for equal values."""
    values = {key: one.value for key, one in statements(dossier).items()}
    return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()


def take(
    dossier: Dossier,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    source: str,
    at: datetime,
    by: str | None = None,
) -> bool:
    """Take what a source says now and did not say before; return whether the fiche changed.

    What the source no longer says goes, if it was its own. Of a field that holds several things a resource adds and
    removes its own only.
    """
    known = statements(dossier)
    kept: dict[str, Any] = dict(dossier.clinical.get("fiche", {}))
    of_a_resource = "/" in source
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key):
            continue
        held_value = known[key].value if key in known else None
        value = after.get(key)
        if of_a_resource and field_named(key).kind in {"groupe", "codes"}:
            others = [one for one in held_value or () if not _is_of(one, before.get(key) or (), source)]
            value = [*others, *(one for one in value or () if one not in others)] or None
        elif value is None and (held_value is None or known[key].source != source):
            continue
        if value is None:
            kept.pop(key, None)
        elif value != held_value:
            kept[key] = msgspec.to_builtins(Statement(value=value, source=source, by=by, at=at))
    return _keep(dossier, kept)


def _is_of(one: Any, before: Any, source: str) -> bool:
    return one.get("de") == source if isinstance(one, dict) else one in before


def _keep(dossier: Dossier, kept: dict[str, Any]) -> bool:
    if kept == dossier.clinical.get("fiche", {}):
        return False
    # A new object, because changes inside a JSON value are not seen.
    dossier.clinical = {**dossier.clinical, "fiche": kept}
    return True


# --- A person edits ------------------------------------------------------------------------------------------------


def editable(session: Session, caller: access.Caller, dossier: Dossier) -> bool:
    """Whether this person may edit the fiche now: the requester or an organiser, until the report is validated."""
    return _may_edit(session, caller, dossier) and is_open(session, dossier)


def held(step: Step, dossier_id: uuid.UUID) -> Dossier:
    """Lock a dossier whose fiche the caller may edit.

    Raises
    ------
    NotFound
        It does not exist for him.
    Forbidden
        ``lecture-seule``: he reads it only.
    Conflict
        ``formulaire-clos``: the report is validated, or the dossier refused or cancelled.
    """
    visible = select(Dossier.id).where(Dossier.id == dossier_id, access.dossiers(step.caller))
    if step.session.scalar(visible) is None:
        raise access.hidden(step.caller, "Dossier", dossier_id)
    [dossier] = step.lock(Dossier, dossier_id)
    if not _may_edit(step.session, step.caller, dossier):
        error = Forbidden("lecture-seule", "La fiche est écrite par le demandeur et les organisateurs de la RCP.")
        error.trail = access.facts(
            step.caller, "refus", outcome="4", reason="lecture-seule", object_type="Dossier", object_id=str(dossier_id)
        )
        raise error
    if not is_open(step.session, dossier):
        text = "La fiche ne change plus : le compte rendu est validé, ou le dossier refusé ou annulé."
        raise Conflict("formulaire-clos", text)
    return dossier


def _may_edit(session: Session, caller: access.Caller, dossier: Dossier) -> bool:
    if caller.kind is not access.CallerKind.PROFESSIONAL or caller.practitioner_id is None:
        return False
    if caller.practitioner_id == dossier.requester_id:
        return True
    return bool(access.roles_in(session, caller, dossier.session.rcp_id) & access.ORGANISERS)


def is_open(session: Session, dossier: Dossier) -> bool:
    """Whether it still changes: before a validation, and again while a correction is being written."""
    if dossier.state in dossier_states.FINAL:
        return False
    states = set(session.scalars(select(Report.state).where(Report.dossier_id == dossier.id)))
    return "brouillon" in states or not states & {"valide", "remplace", "annule"}


def edit(step: Step, dossier_id: uuid.UUID, changes: Mapping[str, Any], *, expected: str | None = None) -> Dossier:
    """Write fields of the fiche; an empty value erases.

    Parameters
    ----------
    expected
        What the person read (`reading_of`).

    Raises
    ------
    NotFound, Forbidden, Conflict
        As `held`; ``fiche-changee``: somebody else wrote since it was read.
    InvalidContent
        ``champ-inconnu``, ``champ-invalide``, ``code-inconnu``, ``etiquette-inconnue``.
    """
    dossier = held(step, dossier_id)
    known = statements(dossier)
    wanted = {key: check(field_named(key), value) for key, value in changes.items()}
    changed = {k: value for k, value in wanted.items() if value != (known[k].value if k in known else None)}
    if not changed:
        return dossier
    if expected is not None and expected != reading_of(dossier):
        text = "Quelqu’un d’autre a modifié la fiche depuis que vous l’avez ouverte : relisez-la."
        raise Conflict("fiche-changee", text)
    if "etiquettes" in changed:
        require_labels(dossier, changed["etiquettes"] or ())
        dossier.urgent = URGENT in (changed["etiquettes"] or ())
    kept = dict(dossier.clinical.get("fiche", {}))
    for key, value in changed.items():
        if key in _COLUMNS:
            setattr(dossier, _COLUMNS[key], value)
        said = Statement(value=value, source="portail", by=step.caller.name or None, at=step.now)
        kept[key] = msgspec.to_builtins(said)
    _keep(dossier, kept)
    noted(step, dossier, "Dossier")
    return dossier


def noted(step: Step, dossier: Dossier, object_type: str) -> None:
    """Say that a dossier changed: its version, its resources, the trail."""
    dossier.version += 1
    step.touch(dossier)
    step.audit(
        "modification",
        action="U",
        persons=(dossier.record_id,),
        dossier=dossier.id,
        object_type=object_type,
        object_id=str(dossier.id),
    )


# --- What the RCP asks ---------------------------------------------------------------------------------------------


def lacking(dossier: Dossier) -> tuple[str, ...]:
    """Keys of the fields that the RCP requires and nobody stated."""
    known = statements(dossier)
    return tuple(key for key in rules_of(dossier.session.rcp).obligatoires if key not in known)


def missing(session: Session, dossier: Dossier) -> tuple[str, ...]:
    """What a complete dossier still needs, in words: the question, the RCP's own fields, its images (S0-082)."""
    return (*_unsaid(dossier), *missing_images(imagery_of(session, [dossier])[dossier.id]))


def _unsaid(dossier: Dossier) -> tuple[str, ...]:
    known = statements(dossier)
    return tuple(fields()[key].label for key in _needed(dossier) if key not in known)


def imagery_of(session: Session, dossiers: Sequence[Dossier]) -> dict[uuid.UUID, Imagery]:
    """Return what each dossier awaits and what of it came; « sans imagerie » is what its fiche says."""
    said = ((one.id, statements(one).get("examens.sans_imagerie")) for one in dossiers)
    return imagery(session, dossiers, {key for key, without in said if without is not None and without.value})


def missing_images(known: Imagery) -> tuple[str, ...]:
    """Say which images are missing, in words."""
    if known.missing:
        return tuple(f"Images attendues\u00a0: {one.label}" for one in known.missing)
    return () if known.complete else ("Imagerie, ou « sans imagerie »",)


def _needed(dossier: Dossier) -> Iterable[str]:
    return dict.fromkeys(("motif.question", *rules_of(dossier.session.rcp).obligatoires))


def completeness(session: Session, dossier: Dossier) -> tuple[int, tuple[str, ...]]:
    """Return which share of what a complete dossier needs is there, in per cent, and what is `missing`."""
    unsaid, images = _unsaid(dossier), missing_images(imagery_of(session, [dossier])[dossier.id])
    needed = len(list(_needed(dossier))) + 1  # and its images, however many
    return 100 * (needed - len(unsaid) - bool(images)) // needed, (*unsaid, *images)


def require_enough(dossier: Dossier) -> None:
    """Refuse to call a fiche complete that lacks what its RCP requires.

    Raises
    ------
    InvalidContent
        ``champ-obligatoire``: the fields are named.
    """
    found = lacking(dossier)
    if found:
        labels = ", ".join(f"« {fields()[key].label} »" for key in found)
        where = f"QuestionnaireResponse.descendants().where(linkId='{found[0]}')"
        text = f"Cette RCP demande encore : {labels}."
        raise InvalidContent("champ-obligatoire", text, expression=where, rule=True)


def require_labels(dossier: Dossier, labels: Any) -> None:
    """Refuse labels that the RCP does not have, and none where it needs one (S0-064).

    Raises
    ------
    InvalidContent
        ``etiquette-inconnue``, ``etiquette-absente``.
    """
    rules = rules_of(dossier.session.rcp)
    if rules.etiquettes_obligatoires and not labels:
        text = "Cette RCP classe ses dossiers : choisissez au moins une étiquette."
        raise InvalidContent("etiquette-absente", text, expression="etiquettes", rule=True)
    if any(one != URGENT and one not in rules.etiquettes for one in labels):
        text = "Une étiquette n’est pas de celles de cette RCP."
        raise InvalidContent("etiquette-inconnue", text, expression="etiquettes", rule=True)


def label_of(key: str, code: str) -> str:
    """Say a code of a field by its label; one that its list does not hold by itself."""
    found = concept_of(field_named(key), code)
    return found.label if found is not None else code


def in_words(field: Field, value: Any) -> str:
    """Say a value as a page shows it; what repeats is a line an element."""
    if field.kind == "groupe":
        parts = {part.key: part for part in field.fields}
        lines = ({parts[key]: said for key, said in one.items() if key in parts} for one in value)
        return "\n".join(" ; ".join(f"{p.label} : {in_words(p, s)}" for p, s in one.items()) for one in lines)
    if field.kind == "oui-non":
        return "Oui" if value else "Non"
    if field.kind == "date":
        return french.partial_date(str(value))
    listed = value if isinstance(value, list) else [value]
    found = (concept_of(field, one) if field.kind in {"code", "codes"} else None for one in listed)
    return ", ".join(one.label if one is not None else str(said) for one, said in zip(found, listed, strict=True))
