"""Sign-ins under way and open sessions, kept on the server and revocable there.

Promises: the database holds only hashes of what the browser holds; a sign-in is used once, by the browser that began
it, within ten minutes; a session ends after 30 minutes without a request, after four hours whatever happens [spec psc
§7], at logout here or at the provider; each opening and each end has its audit line, committed with it. Real time
throughout (DECISIONS 12).

Signed cookies without a row were the alternative: they cannot be revoked by the provider's back channel, nor counted.
"""

from __future__ import annotations

import hmac
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from gateway.errors import Conflict, GatewayError, InvalidContent
from gateway.model.account import SignIn, WebSession
from gateway.model.audit import AuditFacts
from gateway.model.partner import TokenReplay
from gateway.model.store import utcnow
from gateway.psc.accounts import Professional, Situation, practitioner_of
from gateway.psc.oidc import Attempt, Proven
from gateway.psc.tokens import LoggedOut
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind
from gateway.rcp.step import Step, Steps
from gateway.web.sealed import Seal, fingerprint

__all__ = ["ABSOLUTE", "ATTEMPT", "IDLE", "Begun", "Opened", "Origin", "Sessions"]

ATTEMPT: Final = timedelta(minutes=10)
IDLE: Final = timedelta(minutes=30)
ABSOLUTE: Final = timedelta(hours=4)

_KEPT_AFTER: Final = timedelta(days=1)
_TOUCH: Final = timedelta(minutes=1)
_WIRE: Final = "portail"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from, for the trail."""

    address: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that came back: its secrets and where its owner wanted to go."""

    attempt: Attempt
    next_path: str


@dataclass(frozen=True, slots=True)
class Opened:
    """An open session as the portal sees it.

    Parameters
    ----------
    choices
        Work situations to choose from, as long as none is chosen; then the session gives no caller.
    """

    id: uuid.UUID
    practitioner_id: uuid.UUID
    idnps: str
    name: str
    acr: str
    situation: str | None
    choices: tuple[Situation, ...]
    next_path: str
    id_token: str | None
    psc_sid: str | None = None

    @property
    def pending(self) -> bool:
        """Whether a work situation is still to be chosen."""
        return self.situation is None

    def caller(self, origin: Origin) -> Caller:
        """Return who is calling; only for a session that is not pending."""
        return Caller(
            kind=CallerKind.PROFESSIONAL,
            practitioner_id=self.practitioner_id,
            identifier=self.idnps,
            name=self.name,
            situation=self.situation,
            acr=self.acr,
            wire=_WIRE,
            address=origin.address,
            request_id=origin.request_id,
            session=str(self.id),
        )


class Sessions:
    """Every sign-in and session of the portal.

    Parameters
    ----------
    seal
        A `Seal` of purpose ``psc-id-token``: the ID token is kept for the logout, unreadable from the database alone.
    now
        Real time; tests turn it.
    """

    def __init__(self, steps: Steps, seal: Seal, *, now: Callable[[], datetime] = utcnow) -> None:
        self._steps = steps
        self._seal = seal
        self._now = now

    # -- sign-in under way -------------------------------------------------------------------------------------------

    def begin(self, attempt: Attempt, next_path: str) -> str:
        """Keep a sign-in and return the secret that binds it to the browser."""
        browser = secrets.token_urlsafe(32)
        now = self._now()

        def verb(step: Step) -> None:
            step.session.add(
                SignIn(
                    state_hash=fingerprint(attempt.state),
                    browser_hash=fingerprint(browser),
                    nonce=attempt.nonce,
                    code_verifier=attempt.code_verifier,
                    next_path=next_path,
                    created_at=now,
                    expires_at=now + ATTEMPT,
                )
            )
            # Used ones stay a day, so that a replay is told from an invention.
            step.session.execute(delete(SignIn).where(SignIn.expires_at < now - _KEPT_AFTER))

        self._steps.run(access.SYSTEM, verb)
        return browser

    def take(self, state: str, browser: str) -> Begun:
        """Use a sign-in, once.

        Raises
        ------
        InvalidContent
            ``psc-state-unknown``, ``psc-state-foreign`` (another browser's; it stays usable by its own),
            ``psc-state-reused`` or ``psc-state-expired``.
        """
        now = self._now()

        def verb(step: Step) -> Begun:
            row = step.session.scalar(select(SignIn).where(SignIn.state_hash == fingerprint(state)).with_for_update())
            if row is None:
                raise _state("psc-state-unknown")
            if not hmac.compare_digest(row.browser_hash, fingerprint(browser)):
                raise _state("psc-state-foreign")
            if row.used_at is not None:
                raise _state("psc-state-reused")
            if row.expires_at <= now:
                raise _state("psc-state-expired")
            begun = Begun(Attempt(state, row.nonce, row.code_verifier), row.next_path)
            row.used_at = now
            # The secrets have done their work.
            row.nonce = row.code_verifier = ""
            return begun

        return self._steps.run(access.SYSTEM, verb)

    # -- sessions ----------------------------------------------------------------------------------------------------

    def open(
        self,
        proven: Proven,
        professional: Professional,
        next_path: str,
        origin: Origin,
        *,
        replacing: str | None = None,
    ) -> tuple[str, Opened]:
        """Open a session and return the browser's token with it.

        A single work situation is taken at once; with several, none is.

        Parameters
        ----------
        replacing
            Token of the session that the same browser had: it ends.
        """
        token = secrets.token_urlsafe(32)
        now = self._now()
        only = professional.situations[0] if len(professional.situations) == 1 else None

        def verb(step: Step) -> Opened:
            practitioner = practitioner_of(step, professional)
            if replacing:
                self._end_where(step, WebSession.token_hash == fingerprint(replacing), "remplacee", origin)
            row = WebSession(
                token_hash=fingerprint(token),
                practitioner=practitioner,
                acr=proven.acr,
                situation={
                    "subject": fingerprint(proven.subject),
                    "name": f"{professional.given} {professional.family}".strip(),
                    "chosen": only.facts() if only else None,
                    "choices": [] if only else [one.facts() for one in professional.situations],
                    "next": next_path,
                },
                psc_sid=proven.sid,
                id_token=self._seal.close({"id_token": proven.id_token}),
                created_at=now,
                seen_at=now,
                expires_at=now + ABSOLUTE,
            )
            step.session.add(row)
            step.session.flush()
            opened = self._opened(row)
            step.trail.write(step.session, _facts(opened, "connexion", origin, action="E"))
            return opened

        return token, self._steps.run(access.SYSTEM, verb)

    def find(self, token: str, origin: Origin) -> Opened | None:
        """Return the open session of a token, or ``None``; one that has outlived its bounds ends here."""
        now = self._now()
        with self._steps.store.session() as session:
            row = session.scalar(
                select(WebSession).where(WebSession.token_hash == fingerprint(token), WebSession.ended_at.is_(None))
            )
            if row is None:
                return None
            over = "duree" if row.expires_at <= now else "inactivite" if row.seen_at + IDLE <= now else None
            if over is None:
                if now - row.seen_at >= _TOUCH:
                    session.execute(update(WebSession).where(WebSession.id == row.id).values(seen_at=now))
                    session.commit()
                return self._opened(row)
        self._steps.run(access.SYSTEM, lambda step: self._end_where(step, WebSession.id == row.id, over, origin))
        return None

    def choose(self, opened: Opened, key: str, origin: Origin) -> Opened:
        """Choose the work situation of a pending session.

        Raises
        ------
        InvalidContent
            ``situation-unknown``: not among the session's choices.
        Conflict
            ``situation-chosen``: it was chosen already, perhaps in another tab.
        """

        def verb(step: Step) -> Opened:
            (row,) = step.lock(WebSession, opened.id)
            if row.ended_at is not None or row.situation.get("chosen"):
                raise Conflict("situation-chosen", "La situation d’exercice de cette session est déjà choisie.")
            chosen = next((one for one in row.situation["choices"] if one["key"] == key), None)
            if chosen is None:
                raise InvalidContent(
                    "situation-unknown", "Choisissez une des situations d’exercice proposées.", expression="situation"
                )
            row.situation = {**row.situation, "chosen": chosen, "choices": []}
            done = self._opened(row)
            step.trail.write(step.session, _facts(done, "connexion", origin, action="U", reason="situation"))
            return done

        return self._steps.run(access.SYSTEM, verb)

    def end(self, opened: Opened, by: str, origin: Origin) -> None:
        """End a session; ending an ended one does nothing."""
        self._steps.run(access.SYSTEM, lambda step: self._end_where(step, WebSession.id == opened.id, by, origin))

    def end_by_provider(self, told: LoggedOut, client_id: str, origin: Origin) -> int:
        """End the sessions that a back-channel logout names and return how many.

        Raises
        ------
        InvalidContent
            ``psc-logout-replayed``: this very token came before.
        """
        now = self._now()

        def verb(step: Step) -> int:
            once = (
                insert(TokenReplay)
                .values(client_id=f"psc:{client_id}", jti=told.jti, expires_at=now + ATTEMPT + ATTEMPT)
                .on_conflict_do_nothing()
                .returning(TokenReplay.jti)
            )
            if step.session.scalar(once) is None:
                raise InvalidContent("psc-logout-replayed", "Cette déconnexion a déjà été traitée.")
            named = []
            if told.sid:
                named.append(WebSession.psc_sid == told.sid)
            elif told.subject:
                named.append(WebSession.situation["subject"].astext == fingerprint(told.subject))
            return self._end_where(step, or_(*named), "psc", origin)

        return self._steps.run(access.SYSTEM, verb)

    def sweep(self) -> int:
        """End the sessions that have outlived their bounds without a request; a periodic task of the worker."""
        now = self._now()

        def verb(step: Step) -> int:
            late = self._end_where(step, WebSession.expires_at <= now, "duree", Origin())
            return late + self._end_where(step, WebSession.seen_at <= now - IDLE, "inactivite", Origin())

        return self._steps.run(access.SYSTEM, verb)

    # -- refusals ----------------------------------------------------------------------------------------------------

    def refuse(self, error: GatewayError, origin: Origin) -> None:
        """Write the audit line of a sign-in that was refused: its own facts, else `refusal` of nobody known."""
        known = error.trail if isinstance(error.trail, AuditFacts) else None
        self._steps.record(known or self.refusal(error, origin))

    def refusal(
        self, error: GatewayError, origin: Origin, *, actor: str | None = None, acr: str | None = None
    ) -> AuditFacts:
        """Say a refusal to the trail; the reason is the error's code and nothing else."""
        return AuditFacts(
            event="connexion",
            action="E",
            outcome="8" if error.category in {"fault", "unavailable"} else "4",
            reason=error.code,
            actor_kind=CallerKind.PROFESSIONAL.value,
            actor_id=actor,
            acr=acr,
            wire=_WIRE,
            address=origin.address,
            request_id=origin.request_id,
            happened=self._now(),
        )

    # -- rows --------------------------------------------------------------------------------------------------------

    def _opened(self, row: WebSession) -> Opened:
        facts: dict[str, Any] = row.situation
        chosen = facts.get("chosen")
        sealed = self._seal.open(row.id_token) if row.id_token else None
        return Opened(
            id=row.id,
            practitioner_id=row.practitioner.id,
            idnps=row.practitioner.idnps,
            name=facts.get("name", ""),
            acr=row.acr,
            situation=Situation(**chosen).label() if chosen else None,
            choices=tuple(Situation(**one) for one in facts.get("choices", [])),
            next_path=facts.get("next", ""),
            id_token=sealed["id_token"] if sealed else None,
            psc_sid=row.psc_sid,
        )

    def _end_where(self, step: Step, named: Any, by: str, origin: Origin) -> int:
        rows = step.session.scalars(
            select(WebSession)
            .where(named, WebSession.ended_at.is_(None))
            .order_by(WebSession.id)
            .with_for_update(of=WebSession)
        ).all()
        for row in rows:
            opened = self._opened(row)
            row.ended_at = self._now()
            row.ended_by = by
            row.id_token = None
            step.trail.write(step.session, _facts(opened, "deconnexion", origin, action="E", reason=by))
        step.session.flush()
        return len(rows)


def _state(code: str) -> InvalidContent:
    return InvalidContent(
        code, "Cette connexion n’est plus valable : elle a expiré, a déjà servi ou vient d’un autre navigateur."
    )


def _facts(opened: Opened, event: str, origin: Origin, **more: Any) -> AuditFacts:
    detail = {"psc_sid": opened.psc_sid} if opened.psc_sid else None
    return access.facts(opened.caller(origin), event, happened=utcnow(), detail=detail, **more)
