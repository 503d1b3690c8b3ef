"""Which letter tells whom of a report: the document (M6), a link to it (M5), the patient's own copy (M6p).

Promises: one table of kinds, that the outbox, the register and a second sending agree upon; who holds the document of
an earlier version gets the document that replaces it, or takes it back, even where the RCP sends links by now: nothing
else makes his software set the old one aside. Writes no row and no byte (`gateway.rcp.report_sending`, the mail wire).

[spec features 4.2 M5, M6; spec mssante 2.12, 6.1]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.rcp import mailboxes, report_people
from gateway.rcp.patient_copy import COPY
from gateway.rcp.ports import RenderedForm, ReportKind, ReportLetter
from gateway.rcp.report_content import ReportContent
from gateway.rcp.step import Step

__all__ = ["DOCUMENT", "LINK", "VERSIONS", "WITHDRAWALS", "kind_for", "letter", "state_told", "withdrawal_of"]

LINK: Final = "M5"
DOCUMENT: Final = "M6"
#: Kind of the letter that brings a professional a version, to that of the one that takes it back.
WITHDRAWALS: Final[Mapping[str, ReportKind]] = {LINK: "M5r", DOCUMENT: "M6r"}
#: The letters that bring a version to whom ever.
VERSIONS: Final = frozenset({*WITHDRAWALS, COPY})


def kind_for(dossier: Dossier, earlier: Collection[str]) -> ReportKind:
    """Say by which letter a professional gets a version.

    Parameters
    ----------
    earlier
        Kinds of the letters that brought him earlier versions.
    """
    return LINK if dossier.session.rcp.notification.get("cr_par_lien") and DOCUMENT not in earlier else DOCUMENT


def withdrawal_of(earlier: Collection[str]) -> ReportKind:
    """Say by which letter who got those letters learns that the report is withdrawn."""
    return WITHDRAWALS[DOCUMENT if DOCUMENT in earlier else LINK]


def state_told(kind: str) -> str | None:
    """Return the state of the report of which a letter tells: what is told of another is no longer true."""
    if kind in VERSIONS:
        return "valide"
    return "annule" if kind in WITHDRAWALS.values() else None


def letter(
    step: Step,
    dossier: Dossier,
    content: ReportContent,
    *,
    kind: ReportKind,
    key: str,
    address: str,
    recipient: Practitioner | None,
    forms: tuple[RenderedForm, ...],
    previous: Sequence[str],
) -> ReportLetter:
    """Put together what the mail wire needs of one letter.

    Parameters
    ----------
    recipient
        None where it is the patient.
    previous
        Message-IDs, without brackets, of what was sent to the same person of earlier versions, oldest first.
    """
    rcp = dossier.session.rcp
    base = rcp.network.base_url.rstrip("/")
    return ReportLetter(
        kind=kind,
        key=key,
        at=step.now,
        address=address,
        listed=mailboxes.is_mssante(step.session, address),
        recipient=report_people.person_of(recipient) if recipient is not None else None,
        content=content,
        forms=forms,
        signature=rcp.signature,
        spaced_hours=rcp.notification.get("format_heure") == "18 h 30",
        link=f"{base}/dossiers/{dossier.id}/compte-rendu",
        platform=base,
        previous=tuple(previous),
    )
