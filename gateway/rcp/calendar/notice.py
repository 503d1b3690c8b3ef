"""« 2 jours ouvrés avant » : the day on which physicians are told, and until when a dossier is in time.

[spec features 5.1, 5.4; S2-008, S2-020, S3-004]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import Enum, StrEnum

from gateway.errors import InvalidContent
from gateway.rcp.calendar.holidays import HolidaySet
from gateway.rcp.calendar.walltime import WallTime, instant_of

__all__ = [
    "CatchUp",
    "CountMode",
    "LimitRule",
    "Notice",
    "NoticeRule",
    "Sending",
    "Verdict",
    "is_working_day",
    "nth_working_day_before",
    "plan_notice",
]

_LONGEST_NOTICE_DAYS = 60
_SATURDAY = 5
_END_OF_DAY = time(23, 59, 59)


class CountMode(StrEnum):
    """Which days count: ``ouvres`` leaves out week-ends and holidays, ``hors_we`` week-ends only."""

    OUVRES = "ouvres"
    HORS_WE = "hors_we"


class LimitRule(StrEnum):
    """Until when, on the sending day, a dossier is in time."""

    HEURE_SEANCE = "heure_seance"
    HEURE_ENVOI = "heure_envoi"
    FIN_DE_JOURNEE = "fin_de_journee"


@dataclass(frozen=True, slots=True)
class NoticeRule:
    """How an RCP tells physicians of its sessions. Zone and holidays are the organiser's, not the physician's.

    Parameters
    ----------
    days
        How many days that count stand between the sending day (included) and the session (excluded).
    send_at
        Hour of sending, on the wall of the session's place; an earlier session sends at its own hour.
    """

    days: int = 2
    mode: CountMode = CountMode.OUVRES
    send_at: time = time(8, 0)
    limit: LimitRule = LimitRule.HEURE_SEANCE
    holidays: HolidaySet = field(default_factory=HolidaySet)

    def __post_init__(self) -> None:
        """Refuse a delay that no RCP can mean."""
        if not 1 <= self.days <= _LONGEST_NOTICE_DAYS:
            text = f"Le délai de notification va de 1 à {_LONGEST_NOTICE_DAYS} jours."
            raise InvalidContent("delai-invalide", text, rule=True)


@dataclass(frozen=True, slots=True)
class CatchUp:
    """The option « rattrapage » : a dossier registered after the limit is still told, if time remains."""

    minimum_hours: float = 6


class Verdict(Enum):
    """What becomes of one dossier's notification."""

    AT_SENDING = "at-sending"
    AT_ONCE = "at-once"
    CATCH_UP = "catch-up"
    TOO_LATE = "too-late"


@dataclass(frozen=True, slots=True)
class Sending:
    """A verdict, and the instant from which the message is due; None when it never is."""

    verdict: Verdict
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Notice:
    """The instants of one session's notification, in UTC: ``sends_at`` ≤ ``limit`` < ``starts_at``."""

    sending_day: date
    sends_at: datetime
    limit: datetime
    starts_at: datetime

    def sending(
        self,
        registered_at: datetime,
        *,
        completed_at: datetime | None = None,
        data_limit: datetime | None = None,
        catch_up: CatchUp | None = None,
    ) -> Sending:
        """Say when a dossier's notification is due [spec features 5.4.4 to 5.4.6].

        Parameters
        ----------
        registered_at
            First complete registration in this session: its pre-fiche was saved.
        completed_at
            When the last other condition came true (the physician was named, say), if that was later.
        data_limit
            Until when such a condition may still come true for a dossier registered in time; `limit` by default.
        catch_up
            The option, if the RCP has it: for a dossier registered late, not for a condition that came late.
        """
        ready_at = max(registered_at, completed_at or registered_at)
        if ready_at <= self.sends_at:
            return Sending(Verdict.AT_SENDING, self.sends_at)
        if registered_at <= self.limit:
            in_time = ready_at <= (data_limit or self.limit)
            return Sending(Verdict.AT_ONCE, ready_at) if in_time else Sending(Verdict.TOO_LATE, None)
        if catch_up and self.starts_at - ready_at >= timedelta(hours=catch_up.minimum_hours):
            return Sending(Verdict.CATCH_UP, ready_at)
        return Sending(Verdict.TOO_LATE, None)

    def is_due(self, sending: Sending, now: datetime) -> bool:
        """Say whether a message may leave now: due, and the session has not begun [spec features 5.4.8]."""
        return sending.at is not None and sending.at <= now < self.starts_at


def is_working_day(day: date, holidays: HolidaySet, mode: CountMode = CountMode.OUVRES) -> bool:
    """Say whether a day counts."""
    return day.weekday() < _SATURDAY and (mode is CountMode.HORS_WE or day not in holidays)


def nth_working_day_before(day: date, count: int, holidays: HolidaySet, mode: CountMode = CountMode.OUVRES) -> date:
    """Return the ``count``-th day that counts before a day; the day itself is never counted. Pure date arithmetic."""
    while count:
        day -= timedelta(days=1)
        count -= is_working_day(day, holidays, mode)
    return day


def plan_notice(session: WallTime, rule: NoticeRule) -> Notice:
    """Return when a session's physicians are told.

    Raises
    ------
    InvalidContent
        ``heure-inexistante`` when the session's own hour does not exist on that day.
    """
    sending_day = nth_working_day_before(session.day, rule.days, rule.holidays, rule.mode)
    sends_on_wall = min(rule.send_at, session.at)
    limit_on_wall = {
        LimitRule.HEURE_SEANCE: session.at,
        LimitRule.HEURE_ENVOI: sends_on_wall,
        LimitRule.FIN_DE_JOURNEE: _END_OF_DAY,
    }[rule.limit]
    return Notice(
        sending_day=sending_day,
        sends_at=instant_of(sending_day, sends_on_wall, session.zone, skip_gap=True),
        limit=instant_of(sending_day, limit_on_wall, session.zone, skip_gap=True),
        starts_at=session.instant,
    )
