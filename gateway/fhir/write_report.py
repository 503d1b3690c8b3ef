"""A report (compte rendu) that the software of the RCP's establishment writes as a Composition.

[spec fhir-fr 1.14, 2.2, 2.4, 4.1]

Promises: a preliminary Composition is the draft, a final one its validation, by the portal's own verbs: same rules,
same frozen facts, same forms and mails; the coordinator in whose name it is written must be one of this very RCP, and a
validation needs him as legal attester: a software validates nothing of its own. A draft is shown to its own
establishment alone. A Composition that is no report of a dossier here is kept as sent.
Not promised: corrections and withdrawals, which a person makes in the portal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select

from gateway.errors import Conflict, Forbidden, InvalidContent, Unsupported
from gateway.fhir import document
from gateway.fhir.keeping import Owner, keep
from gateway.fhir.translate.composition import draft_of, is_report
from gateway.fhir.translate.elements import professional
from gateway.fhir.write_kept import dossier_about, keep_as_sent, patient_about, require_same_patient, root_key
from gateway.fhir.writing import Operation, Writing
from gateway.identifiers import IdNatPs
from gateway.model.directory import Practitioner
from gateway.model.report import Report
from gateway.rcp import report, report_draft

__all__ = ["write_composition"]


def write_composition(writing: Writing, operation: Operation) -> None:
    """Draft or validate a report, or keep a document as sent.

    Raises
    ------
    Forbidden
        ``proprietaire``: another establishment runs the RCP.
    InvalidContent
        ``cr-statut``, ``cr-signataire``, ``patient-different`` (rules), and what the verbs refuse.
    Conflict
        ``cle-modifiee``, ``cr-valide``, ``seance-non-tenue``.
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
    if tree["status"] not in {"preliminary", "final"}:
        text = "Un logiciel écrit un compte rendu provisoire ou validé ; correction et retrait se font au portail."
        raise InvalidContent("cr-statut", text, expression="Composition.status", rule=True)
    known = writing.step.session.get(Report, before.root_id) if before is not None else None
    if before is not None and known is not None and (known.state != "brouillon" or known.dossier_id != dossier.id):
        if not document.same_content(document.decode(before.body), tree):
            text = "Cette version du compte rendu est validée : elle ne change plus."
            raise Conflict("cr-valide", text, expression="Composition")
        writing.step.touch(known)
        return
    _write(writing, operation, dossier.id, known)


def _write(writing: Writing, operation: Operation, dossier_id: Any, known: Report | None) -> None:
    tree, step = operation.tree, writing.step
    final = tree["status"] == "final"
    signatory = _signatory(writing, tree, final=final)
    said = draft_of(tree, report_draft.read(known.draft) if known is not None else None)
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
