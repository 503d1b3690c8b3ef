"""Mails that left and of which nothing was heard: told to a person in time.

Promises: run once, twice or by two processes at once, each silence is told once; a mail of which news came meanwhile
is left alone; one that cannot be told holds no other; nothing is sent. [spec mssante 5.3, 5.7]
"""

from __future__ import annotations

import uuid

import structlog
from sqlalchemy import select, tuple_

from gateway.model.message import Message, Receipt
from gateway.rcp.mail_events import ask_person
from gateway.rcp.receipt_rules import ANSWERED, OPEN
from gateway.rcp.step import Step, Steps
from gateway.rcp.waiting import receipt_due, waits_of

__all__ = ["settle", "settle_due"]

log = structlog.get_logger(__name__)


def settle_due(steps: Steps, *, limit: int = 200) -> int:
    """Settle the mails whose news is missed, each in a step of its own; say of how many a person is told.

    Run by the worker each minute: it may run at any time, twice, or after a crash.
    """
    wanted = (
        select(Message.receipt_due_at, Message.id)
        .where(Message.receipt_due_at <= steps.clock.now())
        .order_by(Message.receipt_due_at, Message.id)
        .limit(limit)
    )
    told, page = 0, wanted
    while True:
        with steps.store.session() as session:
            due = session.execute(page).tuples().all()
        told += steps.each([key for _, key in due], lambda key, step: settle(step, key), refused="silence-not-told")
        if len(due) < limit:
            break
        # One that fails each time keeps its place: the next page begins behind it, not with it.
        page = wanted.where(tuple_(Message.receipt_due_at, Message.id) > due[-1])
    if told:
        log.info("mails-without-news", messages=told)
    return told


def settle(step: Step, message_id: uuid.UUID) -> bool:
    """Say what is missing of one mail at the step's instant; whether a person is told."""
    [message] = step.lock(Message, message_id)
    if message.receipt_due_at is None or message.receipt_due_at > step.now:
        return False
    missed = {one.what for one in waits_of(step.session, message) if one.until <= step.now}
    message.receipt_due_at = receipt_due(step.session, message, step.now)
    step.session.flush()
    silent = message.state in OPEN
    if silent and missed:
        message.state = "sans-nouvelle"
        step.session.flush()
        ask_person(step.session, message, "sans-nouvelle", about=message)
        step.touch(message)
        return True
    if message.state == "accepte" and "lecture" in missed and not _was_answered(step, message_id):
        ask_person(step.session, message, "sans-lecture", about=message)
        return True
    return False


def _was_answered(step: Step, message_id: uuid.UUID) -> bool:
    answered = select(Receipt.id).where(Receipt.message_id == message_id, Receipt.kind.in_(ANSWERED)).limit(1)
    return step.session.scalar(answered) is not None
