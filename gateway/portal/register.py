"""The register of notifications in words: spec features 4.3, label by label.

Promises: each line of the register gives at least one label, and a physician about whom nothing was decided yet is said
not to be. Dates are those of the meeting's zone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.model.dossier import Correspondent, Dossier
from gateway.model.message import Message, NotificationEntry, Receipt
from gateway.portal.words import local
from gateway.rcp.french import hour, short_date
from gateway.rcp.notice_rules import REASONS

__all__ = ["LABELS", "register_labels"]


def _day(at: datetime | None) -> str:
    return short_date(at) if at is not None else "une date à fixer"


def _moment(at: datetime | None) -> str:
    return f"{short_date(at)} à {hour(at)}" if at is not None else "une date à fixer"


def _plain(words: str) -> Callable[[datetime | None], str]:
    return lambda _: words


#: Code of the register to its label; the instant is the line's own (due, sent, limit).
LABELS: Final[dict[str, Callable[[datetime | None], str]]] = {
    **{code: _plain(words) for code, words in REASONS.items()},
    "PREVUE": lambda at: f"Notification avant RCP prévue le {_day(at)}",
    "ENVOYEE": lambda at: f"Notification envoyée le {_moment(at)}",
    "REMISE": lambda at: f"Remise le {_moment(at)}",
    "LUE": lambda at: f"Lue le {_moment(at)}",
    "CONNECTE": lambda at: f"Fiche consultée le {_moment(at)}",
    "CONTRIBUE": lambda at: f"Contribution du {_day(at)}",
    "NON_DELAI": lambda at: f"Dossier inscrit après la limite du {_moment(at)}",
    "ECHEC": lambda _: "Échec de remise – à traiter",
}
_DATED_BY_LIMIT: Final = frozenset({"PREVUE", "NON_DELAI"})
_RECEIPTS: Final = {"remise": "REMISE", "lue": "LUE"}


def register_labels(
    session: Session, row: Dossier, one: Correspondent | None, entries: Sequence[NotificationEntry]
) -> tuple[str, ...]:
    """Return what the register says of the treating physician of a dossier, in order of time.

    Parameters
    ----------
    one
        His line among the correspondents; ``None`` when none is named.
    entries
        The register's lines of this dossier and session.
    """
    zone = row.session.zone

    def said(code: str, at: datetime | None) -> str:
        label = LABELS.get(code)
        return label(local(at, zone) if at is not None else None) if label else code

    mine = [entry for entry in entries if one is None or entry.practitioner_id in {None, one.practitioner_id}]
    found: list[str] = []
    for entry in sorted(mine, key=lambda each: each.decided_at):
        dated = entry.due_at if entry.code in _DATED_BY_LIMIT else entry.decided_at
        found.append(said(entry.code, dated))
        found.extend(_receipts(session, entry, said))
    if one is None:
        return tuple(found) or (said("NON_MT", None),)
    if one.declined_at is not None:
        found.append(f"« Ce n’est pas mon patient » signalé le {_moment(local(one.declined_at, zone))}")
    if one.connected_at is not None:
        found.append(said("CONNECTE", one.connected_at))
    found.extend(said("CONTRIBUE", each.at) for each in row.contributions if each.author_id == one.practitioner_id)
    return tuple(dict.fromkeys(found)) or ("Notification non encore planifiée",)


def _receipts(session: Session, entry: NotificationEntry, said: Callable[[str, datetime | None], str]) -> Iterable[str]:
    if entry.message_id is None:
        return
    message = session.get(Message, entry.message_id)
    if message is not None and message.state in {"rejete", "parque"} and entry.code != "ECHEC":
        yield said("ECHEC", None)
    rows = session.scalars(select(Receipt).where(Receipt.message_id == entry.message_id).order_by(Receipt.at))
    for receipt in rows:
        if receipt.kind in _RECEIPTS:
            yield said(_RECEIPTS[receipt.kind], receipt.at)
