"""A physician's contribution that a software brings as a Communication; any other Communication is kept as sent.

[spec fhir-fr 1.22, 4.3 F6; spec features S2-035 to S2-040]

Promises: a contribution is the portal's own (`gateway.rcp.contribution`): written by the treating physician of the
dossier, whom the sender names, until the report is validated; the requester is told as from the portal; the same text
again is the same contribution. A contribution that concerns no dossier here is refused, never kept without a word: its
author would believe that the meeting reads it.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import select

from gateway.errors import Conflict, Forbidden, InvalidContent, Unsupported
from gateway.fhir.translate.elements import identifiers, professional
from gateway.fhir.translate.message import contribution_text, is_contribution
from gateway.fhir.write_kept import dossier_about, keep_as_sent, patient_about, require_same_patient, root_key
from gateway.fhir.writing import Operation, Writing
from gateway.identifiers import IdNatPs
from gateway.model.directory import Practitioner
from gateway.model.dossier import Contribution
from gateway.rcp import contribution

__all__ = ["write_communication"]


def write_communication(writing: Writing, operation: Operation) -> None:
    """Contribute to a dossier, or keep a message as sent.

    Raises
    ------
    InvalidContent
        ``inscription-inconnue``, ``professionnel-inconnu``, ``contribution-statut``, ``patient-different`` (rules), and
        what the verb refuses.
    Forbidden
        ``proprietaire``: it was not this organisation's software that brought it.
    """
    tree, before = operation.tree, operation.before
    held = before is not None and before.root_kind == "Contribution"
    if before is not None and held != is_contribution(tree):
        text = "Une contribution ne devient pas un autre message, ni l’inverse."
        raise Conflict("cle-modifiee", text, expression="Communication.category")
    if not is_contribution(tree):
        keep_as_sent(writing, operation)
        return
    dossier = dossier_about(writing, "Communication", tree)
    if dossier is None:
        text = "La contribution doit désigner une inscription connue (basedOn vers un ServiceRequest)."
        raise InvalidContent("inscription-inconnue", text, expression="Communication.basedOn", rule=True)
    record = patient_about(writing, operation)
    if record is not None:
        require_same_patient(writing, operation, dossier.record_id, record.id)
    if tree["status"] != "completed":
        text = "Une contribution est un message achevé (status « completed ») ; elle ne se retire pas."
        raise InvalidContent("contribution-statut", text, expression="Communication.status", rule=True)
    if writing.ports.letters is None:
        raise Unsupported("contribution", "Les contributions ne sont pas configurées ici.")
    author = _author(writing, operation)
    mine = f"fhir|{writing.partner.id}|"
    if before is not None:
        known = writing.step.session.get(Contribution, before.root_id)
        if known is None or not known.key.startswith(f"{dossier.id}|{author.id}|{mine}"):
            text = "Cette contribution a été apportée par un autre chemin ; elle n’est récrite que par lui."
            raise Forbidden("proprietaire", text, expression="Communication")
    text = contribution_text(tree)
    named = next(iter(identifiers(tree.get("identifier"))), None)
    which = f"{named.system}|{named.value}" if named is not None else str(operation.identity)
    row = contribution.contribute(
        writing.step,
        dossier.id,
        text=text,
        interested=None,
        key=f"{mine}{which}|{hashlib.sha256(text.encode()).hexdigest()}",
        letters=writing.ports.letters,
        channel="fhir",
        author=author,
        contribution_id=root_key(operation),
    )
    operation.identity = str(row.id)
    writing.step.touch(row)
    writing.sent["Communication", operation.identity] = tree


def _author(writing: Writing, operation: Operation) -> Practitioner:
    said = professional(operation.tree.get("sender"), writing.resolve())
    found = None
    if said is not None and said.identifier is not None:
        number = IdNatPs.from_wire(said.identifier.value).value
        found = writing.step.session.scalar(select(Practitioner).where(Practitioner.idnps == number))
    if found is None:
        text = "L’auteur de la contribution (sender) n’est pas un professionnel connu de cette passerelle."
        raise InvalidContent("professionnel-inconnu", text, expression="Communication.sender", rule=True)
    return found
