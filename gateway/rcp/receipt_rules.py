"""What a receipt means for a mail, which bounce is for good, and until when news is waited for: the rules alone.

Promises: pure functions over tables; receipts in any order and any number give one state, the highest that one of them
gives, so that a state never goes back; nothing is waited for that was not asked for (an operator without delivery
reports tells of no success, a mail without the request gets no read receipt).

[spec mssante 5.1, 5.3, 5.7; RFC 3463]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gateway.rcp.calendar import HolidaySet, working_hours_after

__all__ = ["ANSWERED", "OPEN", "STATES", "Wait", "address_is_lost", "state_after", "waits"]

STATES: Mapping[str, str] = {
    "retardee": "retarde",
    "relayee": "relaye",
    "remise": "accepte",
    "supprimee": "supprime",
    "rejetee": "rejete",
    "refusee": "rejete",
    "traitee": "traite",
    "lue": "lu",
}
"""Kind of a receipt to the state of the mail that it tells of."""

# A delivered mail may still bounce; one that was read or filed by software stays so: the bounce is kept beside it.
_RANK: Mapping[str, int] = {
    state: rank
    for rank, state in enumerate(
        ("retarde", "relaye", "sans-nouvelle", "accepte", "supprime", "rejete", "traite", "lu"), 1
    )
}
OPEN = frozenset({"envoye", "retarde", "relaye"})
"""States of a mail that left and of whose delivery nothing is known."""
ANSWERED = frozenset({"lue", "traitee", "supprimee", "refusee"})
"""Kinds of receipts that a person's or a software's side gives: no further one need come."""

_FOR_GOOD = frozenset({"550", "551", "553"})
# X.1.5 says that the address is good, X.1.7 and X.1.8 speak of the sender's, X.1.9 of the way. [RFC 3463 §3.2]
_LOST = re.compile(r"5\.(?:1\.(?:[0-46]|10)|2\.1)")
_SAYS_NOTHING = re.compile(r"5\.0\.\d+")

_NOTICE_HOURS = 4.0
_REPORT_DELIVERY = timedelta(hours=48)
_REPORT_READING = timedelta(days=7)


def state_after(state: str, kind: str) -> str:
    """Return the state of a mail in some state once a receipt of that kind came."""
    reached = STATES.get(kind, state)
    return reached if _RANK.get(reached, 0) > _RANK.get(state, 0) else state


def address_is_lost(*, status: str | None, code: str | None) -> bool:
    """Whether a failure says that the address itself is no good any more.

    Parameters
    ----------
    status
        Enhanced status, which decides when it says something.
    code
        Three digits of the answer to the recipient's address; not of an answer to the content.
    """
    if status is not None and not _SAYS_NOTHING.fullmatch(status):
        return _LOST.fullmatch(status) is not None
    return code in _FOR_GOOD


@dataclass(frozen=True, slots=True)
class Wait:
    """Until when, in domain time, delivery or reading is waited for."""

    until: datetime
    what: Literal["remise", "lecture"]


def waits(kind: str, sent_at: datetime, *, dsn: bool, mdn: bool, zone: str, holidays: HolidaySet) -> Sequence[Wait]:
    """Return what is waited for after a mail of that kind, earliest first.

    A notification (M1, M1c) is told of in four working hours, so that somebody can still telephone; a report (M5, M6
    and their withdrawals) is delivered within two days and read within a week; nothing else is waited for.
    """
    found = []
    if kind in {"M1", "M1c"} and dsn:
        found.append(Wait(working_hours_after(sent_at, _NOTICE_HOURS, zone, holidays), "remise"))
    if kind.startswith(("M5", "M6")):
        found += [Wait(sent_at + _REPORT_DELIVERY, "remise")] * dsn
        found += [Wait(sent_at + _REPORT_READING, "lecture")] * mdn
    return found
