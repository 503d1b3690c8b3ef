"""A report (compte rendu) that the software of the RCP's establishment writes as a Composition.

[spec fhir-fr 1.14, 2.2, 2.4, 4.1]

Promises: a preliminary Composition is the draft, a final one its validation, by the portal's own verbs: same rules,
same frozen facts, same forms and mails; the coordinator in whose name it is written must be one of this very RCP, and a
validation needs him as legal attester: a software validates nothing of its own. A Composition that says which version
it replaces (or appends to: an addendum is a version too, DECISIONS 5) is that correction, ``amended`` once validated; a
validated one sent again as ``entered-in-error`` is its withdrawal. Both say why (`MOTIVE`). A draft is shown to its own
establishment alone. A Composition that is no report of a dossier here is kept as sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import select

from gateway.errors import Conflict, Forbidden, InvalidContent, Unsupported
from gateway.fhir import document
from gateway.fhir.keeping import Owner, keep
from gateway.fhir.translate.composition import draft_of, is_report
from gateway.fhir.translate.elements import CANONICAL, extension, professional
from gateway.fhir.translate.report import document_identifier
from gateway.fhir.write_kept import dossier_about, keep_as_sent, patient_about, require_same_patient, root_key
from gateway.fhir.writing import Operation, Writing
from gateway.identifiers import IdNatPs
from gateway.model.directory import Practitioner
from gateway.model.report import Report
from gateway.rcp import report, report_draft, report_reading

__all__ = ["MOTIVE", "write_composition"]

#: Why a version replaces, or is withdrawn: an extension (valueString) of ``relatesTo``, or of the Composition.
MOTIVE = f"{CANONICAL}/StructureDefinition/rcp-motif"
_DRAFTED, _VALIDATED, _WITHDRAWN = "preliminary", frozenset({"final", "amended"}), "entered-in-error"
#: ``relatesTo.code`` → what a version that replaces is.
_KINDS: Mapping[str, Literal["correction", "addendum"]] = {"replaces": "correction", "appends": "addendum"}


def write_composition(writing: Writing, operation: Operation) -> None:
    """Draft or validate a report, or keep a document as sent.

    Raises
    ------
    Forbidden
        ``proprietaire``: another establishment runs the RCP.
    InvalidContent
        ``cr-statut``, ``cr-signataire``, ``patient-different`` (rules), and what the verbs refuse.
    Conflict
        ``cle-modifiee``, ``cr-valide``, ``cr-brouillon``, ``version-perimee``, ``seance-non-tenue``.
    """
    tree, before = operation.tree, operation.before
    held = before is not None and before.root_kind == "Report"
    dossier = dossier_about(writing, "Composition", tree) if is_report(tree) else None
    if before is not None and held != (dossier is not None):
        text = "Un compte rendu de RCP ne devient pas un autre document, ni l’inverse."
        raise Conflict("cle-modifiee", text, expression="Composition.type")
    if dossier is None:
        keep_as_sent(writing, operation)
        return
    if dossier.session.rcp_id not in writing.step.caller.rcps:
        text = "Le compte rendu est écrit par la passerelle de la RCP seulement."
        raise Forbidden("proprietaire", text, expression=operation.where or "Composition")
    record = patient_about(writing, operation)
    if record is not None:
        require_same_patient(writing, operation, dossier.record_id, record.id)
    known = writing.step.session.get(Report, before.root_id) if before is not None else None
    if known is not None and tree["status"] == _WITHDRAWN:
        _withdraw(writing, operation, known)
        return
    if before is not None and known is not None and (known.state != "brouillon" or known.dossier_id != dossier.id):
        _require_same(before, tree)
        writing.step.touch(known)
        return
    replaced = _replaced(writing, tree, dossier.id)
    corrects = replaced is not None or (known is not None and known.replaces_id is not None)
    if tree["status"] not in {_DRAFTED, *_VALIDATED} or (tree["status"] == "amended" and not corrects):
        text = (
            "Un compte rendu est écrit provisoire (preliminary) ou validé (final) ; une version corrigée (amended) "
            "nomme par relatesTo la version en vigueur ; un compte rendu validé se retire (entered-in-error)."
        )
        raise InvalidContent("cr-statut", text, expression="Composition.status", rule=True)
    _write(writing, operation, dossier.id, known, replaced)


def _require_same(before: Any, tree: dict[str, Any]) -> None:
    if not document.same_content(document.decode(before.body), tree):
        text = "Cette version du compte rendu est validée : elle ne change plus."
        raise Conflict("cr-valide", text, expression="Composition")


def _withdraw(writing: Writing, operation: Operation, known: Report) -> None:
    """Withdraw a validated version that is sent again as it stands, but for its status and the reason."""
    tree, before = operation.tree, operation.before
    if known.state == "brouillon":
        text = "Un brouillon ne se retire pas : il s’abandonne au portail."
        raise InvalidContent("cr-statut", text, expression="Composition.status", rule=True)
    said = [one for one in tree.get("extension", ()) if one.get("url") != MOTIVE]
    bare = {name: value for name, value in tree.items() if name != "extension"} | ({"extension": said} if said else {})
    if known.state == "annule":
        _require_same(before, tree)
    elif known.state == "remplace":
        text = "Cette version n’est plus en vigueur : c’est celle qui la remplace qui se retire."
        raise Conflict("version-perimee", text, expression="Composition")
    else:
        _require_same(before, bare | {"status": document.decode(before.body)["status"]} if before is not None else bare)
        if writing.ports.press is None:
            raise Unsupported("compte-rendu", "La validation des comptes rendus n’est pas configurée ici.")
        signatory = _signatory(writing, tree, final=True)
        report.cancel(writing.step, known.dossier_id, _motive(tree) or "", writing.ports.press, signatory=signatory)
        writing.sent["Composition", str(known.id)] = tree
    writing.step.touch(known)


def _motive(node: Mapping[str, Any]) -> str | None:
    found = next(extension(node, MOTIVE), None)
    return found.get("valueString") if found is not None else None


class _Replaced(NamedTuple):
    """Of a version that replaces: what it is, and why."""

    kind: Literal["correction", "addendum"]
    reason: str | None


def _replaced(writing: Writing, tree: Mapping[str, Any], dossier_id: Any) -> _Replaced | None:
    """Read which version is replaced; it must be the one in force.

    Raises
    ------
    Conflict
        ``version-perimee``: another one is.
    """
    for related in tree.get("relatesTo", ()):
        kind = _KINDS.get(related.get("code"))
        if kind is None:
            continue
        last = report_reading.latest(writing.step.session, dossier_id)
        if last is None or last.content is None or last.state != "valide" or not _names(related, last):
            text = "La version que celle-ci remplace n’est pas celle qui est en vigueur."
            raise Conflict("version-perimee", text, expression="Composition.relatesTo")
        return _Replaced(kind, _motive(related))
    return None


def _names(related: Mapping[str, Any], last: Report) -> bool:
    reference = related.get("targetReference", {}).get("reference", "")
    said = related.get("targetIdentifier", {})
    own = document_identifier(last.content or b"")
    named = (said.get("system"), said.get("value")) == (own["system"], own["value"])
    return named or reference.partition("/_history/")[0] == f"Composition/{last.id}"


def _write(
    writing: Writing, operation: Operation, dossier_id: Any, known: Report | None, replaced: _Replaced | None
) -> None:
    tree, step = operation.tree, writing.step
    final = tree["status"] in _VALIDATED
    signatory = _signatory(writing, tree, final=final)
    if known is None and replaced is not None:
        if report.draft_under_way(step.session, dossier_id) is not None:
            text = "Une nouvelle version est en cours : validez-la, ou abandonnez d’abord son brouillon."
            raise Conflict("cr-brouillon", text, expression="Composition")
        known = report.revise(
            step,
            dossier_id,
            kind=replaced.kind,
            reason=replaced.reason,
            signatory=signatory,
            report_id=root_key(operation),
        )
    before = report_draft.read(known.draft) if known is not None else None
    said = draft_of(tree, before, writing.resolve())
    row = report.draft(step, dossier_id, said, signatory=signatory, report_id=root_key(operation))
    operation.identity = key = str(row.id)
    if final:
        if writing.ports.press is None:
            raise Unsupported("compte-rendu", "La validation des comptes rendus n’est pas configurée ici.")
        report.validate(step, dossier_id, writing.ports.press, signatory=signatory)
    else:
        # Until it is validated it is its establishment's alone.
        owner = Owner(partner_id=writing.partner.id, root_kind="Report", root_id=row.id)
        writing.kept["Composition", key] = keep(step.session, "Composition", key, tree, owner)
    writing.sent["Composition", key] = tree


def _signatory(writing: Writing, tree: Mapping[str, Any], *, final: bool) -> Practitioner:
    for party in _parties(tree, final=final):
        said = professional(party, writing.resolve())
        if said is None or said.identifier is None:
            continue
        number = IdNatPs.from_wire(said.identifier.value).value
        found = writing.step.session.scalar(select(Practitioner).where(Practitioner.idnps == number))
        if found is not None:
            return found
    if final:
        text = (
            "Un compte rendu validé nomme le coordonnateur qui l’a validé (attester « legal », avec son identifiant)."
        )
        raise InvalidContent("cr-signataire", text, expression="Composition.attester", rule=True)
    text = "Un compte rendu provisoire nomme le coordonnateur qui l’écrit (author, avec son identifiant national)."
    raise InvalidContent("cr-signataire", text, expression="Composition.author", rule=True)


def _parties(tree: Mapping[str, Any], *, final: bool) -> Iterator[Mapping[str, Any]]:
    """Who stands for the report: the legal attester of a validated one, the authors of a draft."""
    if not final:
        yield from tree.get("author", ())
        return
    for attester in tree.get("attester", ()):
        if attester.get("mode") == "legal" and isinstance(attester.get("party"), Mapping):
            yield attester["party"]
