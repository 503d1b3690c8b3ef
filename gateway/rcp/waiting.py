"""What is waited for after one mail: its receipts, by the calendar of the meeting that it concerns.

Promises: instants are domain time, whatever the machine's clock says. Decides nothing (`gateway.rcp.deadlines` does).
[spec mssante 5.7]
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from gateway.errors import InvalidContent
from gateway.model.meeting import RcpSession
from gateway.model.message import Message
from gateway.rcp.calendar import HolidaySet
from gateway.rcp.receipt_rules import Wait, waits
from gateway.rcp.sessions import holidays_of

__all__ = ["receipt_due", "waits_of"]


def waits_of(session: Session, message: Message) -> Sequence[Wait]:
    """Return what is waited for after a mail that left, earliest first."""
    meeting = session.get(RcpSession, message.session_id) if message.session_id is not None else None
    if meeting is None or message.done_at is None:
        return ()
    try:
        holidays = holidays_of(meeting.rcp)
    except InvalidContent:  # a setting that nobody can read stops no mail: week-ends count still
        holidays = HolidaySet()
    return waits(
        message.kind,
        message.domain_at + (message.done_at - message.created_at),
        dsn=bool(message.details.get("dsn")),
        mdn=bool(message.details.get("mdn")),
        zone=meeting.zone,
        holidays=holidays,
    )


def receipt_due(session: Session, message: Message, after: datetime | None = None) -> datetime | None:
    """Return when news of a mail is first missed, or next after an instant."""
    return next((one.until for one in waits_of(session, message) if after is None or one.until > after), None)
