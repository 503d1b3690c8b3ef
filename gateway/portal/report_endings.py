"""What becomes of a report in force: withdrawn, or shown to its patient; asked for, confirmed, done.

Promises: nothing is done without a reason and the box that confirms it; who will be told stands on the page before; the
verbs are `gateway.rcp.report`'s, and only who coordinates the RCP gets here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gateway.errors import Conflict, InvalidContent, Unsupported
from gateway.portal import dossiers, reports, words
from gateway.portal.forms import Faults, read_ending
from gateway.portal.pages import Answer, Form, Portal, Who, opaque
from gateway.portal.views import ReportEnding
from gateway.rcp import access, report, report_sending
from gateway.rcp.access import Caller
from gateway.rcp.report import Press
from gateway.rcp.step import Step

__all__ = ["ReportEndings"]


@dataclass(frozen=True)
class _Ending:
    """One way out of the state in force: its address, its words and its verb."""

    name: str
    heading: str
    warning: str
    confirm: str
    button: str
    told: Callable[[Step, uuid.UUID], tuple[str, ...]]
    act: Callable[[Step, uuid.UUID, str, Press], object]
    danger: bool = False


def _who_got(step: Step, dossier_id: uuid.UUID) -> tuple[str, ...]:
    """Say who got a version, and so will be asked to delete it."""
    people = report_sending.told(step, dossier_id)
    return tuple(words.formal_name(one.practitioner) for one in people if one.practitioner is not None)


def _who_gets(step: Step, dossier_id: uuid.UUID) -> tuple[str, ...]:
    row = dossiers.visible_dossier(step.session, step.caller, dossier_id)
    return tuple(reports.recipient_lines(step, row))


_ENDINGS: Final = (
    _Ending(
        "annulation",
        "Retirer le compte rendu",
        "Le compte rendu reste consultable ici, marqué « Annulé ». Un courrier demande à chaque destinataire de le "
        "supprimer de ses dossiers : ce qui est déjà remis ne peut pas être repris.",
        "Je retire ce compte rendu",
        "Retirer et prévenir",
        _who_got,
        report.cancel,
        danger=True,
    ),
    _Ending(
        "visibilite",
        "Rendre le compte rendu visible par le patient",
        "Jusqu’à la consultation d’annonce, le compte rendu est envoyé « non visible par le patient ». Une nouvelle "
        "version, au même contenu, lève cette restriction et remplace la précédente chez tous ses destinataires. Si la "
        "RCP l’a choisi et que son INS est qualifiée, le patient la reçoit dans Mon espace santé.",
        "La consultation d’annonce a eu lieu",
        "Lever la restriction et envoyer",
        _who_gets,
        report.show_patient,
    ),
)


class ReportEndings:
    """The two pages of one report in force."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def router(self) -> APIRouter:
        """Build the routes."""
        router = APIRouter(include_in_schema=False)
        for ending in _ENDINGS:
            path = "/dossiers/{dossier}/compte-rendu/" + ending.name
            router.add_api_route(path, self._page(ending), methods=["GET"])
            router.add_api_route(path, self._posted(ending), methods=["POST"])
        return router

    def _page(self, ending: _Ending) -> Callable[..., Response]:
        def page(request: Request, who: Who, dossier: str) -> Response:
            return self._portal.signed_in(
                request, who, lambda caller: self._show(request, caller, opaque(dossier), ending)
            )

        return page

    def _show(
        self,
        request: Request,
        caller: Caller,
        dossier_id: uuid.UUID,
        ending: _Ending,
        reason: str = "",
        faults: Faults | None = None,
    ) -> Response:
        def ask(step: Step) -> Answer:
            return _view(step, caller, dossier_id, ending, reason, faults or {})

        return self._portal.show(request, caller, ask, current="/seances", status=422 if faults else 200)

    def _posted(self, ending: _Ending) -> Callable[..., Response]:
        def posted(request: Request, who: Who, form: Form, dossier: str) -> Response:
            def act(caller: Caller, fields: dict[str, str]) -> Response:
                identifier, press = opaque(dossier), self._portal.press
                if press is None:
                    raise Unsupported("cr-validation", "La validation des comptes rendus n’est pas configurée ici.")
                reason, faults = read_ending(fields)
                if not faults:
                    try:
                        self._portal.steps.run(
                            caller, lambda step: getattr(ending.act(step, identifier, reason, press), "id", None)
                        )
                    except InvalidContent as error:
                        faults = {"motif": error.text}
                if faults:
                    return self._show(request, caller, identifier, ending, reason, faults)
                return RedirectResponse(f"/dossiers/{identifier}/compte-rendu?fait={ending.name}", 303)

            return self._portal.posted(request, who, form, act)

        return posted


def _view(
    step: Step, caller: Caller, dossier_id: uuid.UUID, ending: _Ending, reason: str, errors: Mapping[str, str]
) -> Answer:
    """Return the page that asks.

    Raises
    ------
    Conflict
        ``cr-absent``: there is nothing in force to end; ``cr-visible``: nothing to lift.
    """
    session = step.session
    row = dossiers.visible_dossier(session, caller, dossier_id)
    access.require_role(session, caller, row.session.rcp_id, access.VALIDATORS)
    current = reports.current(session, row)
    if current is None or reports.draft_of(session, row) is not None:
        raise Conflict("cr-absent", "Aucun compte rendu validé n’est en vigueur, ou une nouvelle version est en cours.")
    if ending.name == "visibilite" and not report.is_hidden(current):
        raise Conflict("cr-visible", "Rien ne cache ce compte rendu au patient.")
    page = ReportEnding(
        heading_text=ending.heading,
        reference=row.reference,
        patient=words.patient_view(row.record, step.now.date(), row.partner.name if row.partner else ""),
        slot=words.slot(row.session),
        version=current.version,
        action=f"/dossiers/{row.id}/compte-rendu/{ending.name}",
        back_url=f"/dossiers/{row.id}/compte-rendu",
        warning=ending.warning,
        confirm=ending.confirm,
        button=ending.button,
        danger=ending.danger,
        recipients=ending.told(step, row.id),
        reason=reason,
        errors=dict(errors),
    )
    return page, [reports.read_line(caller, row, "Report")]
