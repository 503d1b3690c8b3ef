"""The register of notifications in words: spec features 4.3, label by label; its page and its file for spreadsheets.

Promises: each line of the register gives at least one label, and a physician about whom nothing was decided yet is said
not to be; what did not arrive is said with its reason. Dates are those of the meeting's zone. No cell of the file is
taken for a formula by a spreadsheet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from gateway.model.audit import AuditFacts
from gateway.model.meeting import RcpSession
from gateway.portal import views as v
from gateway.portal import words
from gateway.portal.failures import failure_words
from gateway.portal.words import local
from gateway.rcp import access, register
from gateway.rcp.access import Caller
from gateway.rcp.french import hour, short_date
from gateway.rcp.notice_rules import REASONS
from gateway.rcp.register import Listed, Mail, Notice, Sending

__all__ = ["LABELS", "as_csv", "csv_name", "label", "notice_labels", "register_lines", "register_page"]

#: Code of the register to its label; the instant is the line's own (due, sent, limit).
LABELS: Final[Mapping[str, str]] = {
    **REASONS,
    "PREVUE": "Notification avant RCP prévue le {date}",
    "ENVOYEE": "Notification envoyée le {date} à {heure}",
    "REMISE": "Remise le {date} à {heure}",
    "LUE": "Lue le {date} à {heure}",
    "CONNECTE": "Fiche consultée le {date} à {heure}",
    "CONTRIBUE": "Contribution du {date}",
    "NON_DELAI": "Dossier inscrit après la limite du {date} à {heure}",
    "ECHEC": "Échec de remise : {motif} – à traiter",
}
_DATED_BY_LIMIT: Final = frozenset({"PREVUE", "NON_DELAI"})
_UNDECIDED: Final = "Notification non encore planifiée"
_NEVER_LEFT: Final = "non envoyée avant la séance"
_NEVER_MADE: Final = "courriel impossible à composer"
_COLUMNS: Final = (
    "Séance",
    "Dossier",
    "Patient",
    "Naissance",
    "Médecin",
    "Spécialité",
    "Courriel",
    "Code",
    "Information",
    "Prévu le",
    "Envoyé le",
    "Remis le",
    "Lu le",
    "Fiche consultée le",
    "Contribution le",
)
# A spreadsheet reads a cell that begins so as a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def label(code: str, at: datetime | None = None, *, reason: str = "") -> str:
    """Return the words of a code; without its instant, those that need none.

    Parameters
    ----------
    at
        On the wall clock of the meeting.
    reason
        Why a mail did not arrive, in words.
    """
    written = LABELS.get(code, code)
    if "{date}" in written and at is None:
        return REASONS.get(code, code)
    date, time = (short_date(at), hour(at)) if at is not None else ("", "")
    return written.format(date=date, heure=time, motif=reason)


def notice_labels(one: Notice, zone: str) -> tuple[str, ...]:
    """Return what the register says of one physician, in order of time."""
    said = [_decision(one, zone)] if one.code or not one.named else []
    mail = one.mail
    if one.code == "ECHEC" and mail is not None and mail.sent_at is not None:
        said.insert(0, label("ENVOYEE", _wall(one.decided_at, zone)))
    if mail is not None:
        if mail.delivered_at is not None:
            said.append(label("REMISE", local(mail.delivered_at, zone)))
        if mail.read_at is not None:
            said.append(label("LUE", local(mail.read_at, zone)))
        if mail.failure is not None and one.code != "ECHEC":
            said.append(label("ECHEC", reason=failure_words(mail.failure)))
    said += [f"Changement annoncé le {_moment(local(each.sent_at, zone))}" for each in one.changes if each.sent_at]
    if one.declined_at is not None:
        said.append(f"« Ce n’est pas mon patient » signalé le {_moment(local(one.declined_at, zone))}")
    if one.connected_at is not None:
        said.append(label("CONNECTE", local(one.connected_at, zone)))
    said += [label("CONTRIBUE", local(at, zone)) for at in one.contributed]
    return tuple(dict.fromkeys(said)) or (_UNDECIDED,)


def _decision(one: Notice, zone: str) -> str:
    """Return why this physician is notified or not."""
    if one.code is None:
        return _UNDECIDED if one.named else label("NON_MT")
    reason = ""
    if one.code == "ECHEC":
        reason = failure_words(one.mail.failure or "") if one.mail is not None else _NEVER_LEFT
    return label(one.code, _wall(one.due_at if one.code in _DATED_BY_LIMIT else one.decided_at, zone), reason=reason)


def _wall(at: datetime | None, zone: str) -> datetime | None:
    return local(at, zone) if at is not None else None


def _moment(at: datetime) -> str:
    return f"{short_date(at)} à {hour(at)}"


def register_lines(session: Session, row: RcpSession, rows: Sequence[Listed]) -> Iterable[v.RegisterLine]:
    """Return the register in short: one line a physician."""
    found = register.notices(session, row.id, [one.id for one in rows])
    for one in rows:
        for notice in found[one.id]:
            yield v.RegisterLine(
                reference=one.reference,
                identity=words.identity(one.record, with_birth=False),
                physician=_name(notice),
                information=notice_labels(notice, row.zone),
                tone=_tone(notice),
                url=f"/dossiers/{one.id}",
            )


def _name(one: Notice) -> str:
    if one.person is not None:
        return words.formal_name(one.person)
    return one.display or "Non renseigné" if one.named else ""


def _tone(one: Notice) -> v.Tone:
    if one.code is None:
        return "neutral" if one.named else "warning"
    return words.register_tone("ECHEC" if one.mail is not None and one.mail.failure is not None else one.code)


def register_page(session: Session, caller: Caller, row: RcpSession) -> tuple[v.Register, list[AuditFacts]]:
    """Return the whole register of a session that the caller prepares, and the line that names its persons."""
    rows = register.listed(session, caller, row.id)
    ids = [one.id for one in rows]
    found, sent = register.notices(session, row.id, ids), register.sendings(session, row.id, ids)
    notes = [(one, notice) for one in rows for notice in found[one.id]]
    page = v.Register(
        slot=words.slot(row),
        state=words.session_badge(row.state),
        back_url=f"/seances/{row.id}",
        csv_url=f"/seances/{row.id}/registre.csv",
        counts=tuple(_counts([notice for _, notice in notes])),
        notices=tuple(_notice(one, notice, row.zone) for one, notice in notes),
        reports=tuple(_report(one, each, row.zone) for one in rows for each in sent.get(one.id, ())),
    )
    persons = tuple(dict.fromkeys(one.record.id for one in rows))
    line = access.facts(caller, "consultation", persons=persons, object_type="RcpSession", object_id=str(row.id))
    return page, [line] if persons else []


def _counts(rows: Sequence[Notice]) -> Iterable[v.Badge]:
    """Say how many physicians were told, will be, were missed and are not."""
    failed = sum(_tone(one) == "danger" for one in rows)
    told = sum(one.code == "ENVOYEE" and _tone(one) != "danger" for one in rows)
    waiting = sum(one.code == "PREVUE" or (one.code is None and one.named) for one in rows)
    for number, one, many, tone in (
        (told, "notifié", "notifiés", "success"),
        (waiting, "à venir", "à venir", "info"),
        (failed, "échec à traiter", "échecs à traiter", "danger"),
        (len(rows) - told - waiting - failed, "non notifié", "non notifiés", "warning"),
    ):
        if number:
            yield v.Badge(f"{number} {one if number == 1 else many}", tone)  # type: ignore[arg-type]  # of the table


def _notice(one: Listed, notice: Notice, zone: str) -> v.RegisterNotice:
    sent = _sent(notice.mail, zone)
    if notice.mail is None and notice.code == "ENVOYEE":
        sent = v.Moment(_wall(notice.decided_at, zone))
    return v.RegisterNotice(
        who=_who(one),
        physician=_name(notice),
        speciality=words.speciality(notice.person.speciality) if notice.person is not None else "",
        code=notice.code or ("" if notice.named else "NON_MT"),
        information=v.Badge(_decision(notice, zone), _tone(notice)),
        due=v.Moment(_wall(notice.due_at, zone) if notice.code != "NON_DELAI" else None),
        sent=sent,
        delivered=_delivered(notice.mail, zone),
        read=v.Moment(_wall(notice.mail.read_at, zone) if notice.mail is not None else None),
        opened=v.Moment(_wall(notice.connected_at, zone)),
        contributed=v.Moment(_wall(notice.contributed[-1], zone) if notice.contributed else None),
        more=tuple(_more(notice, zone)),
    )


def _more(notice: Notice, zone: str) -> Iterable[str]:
    for each in notice.changes:
        if each.failure is not None:
            yield f"Changement : {label('ECHEC', reason=failure_words(each.failure))}"
        elif each.sent_at is not None:
            yield f"Changement annoncé le {_moment(local(each.sent_at, zone))}"
    if notice.declined_at is not None:
        yield f"« Ce n’est pas mon patient » signalé le {_moment(local(notice.declined_at, zone))}"


def _report(one: Listed, each: Sending, zone: str) -> v.RegisterReport:
    mail = each.mail
    failure = mail.failure if mail is not None else None
    if failure is not None:
        said = v.Badge(label("ECHEC", reason=failure_words(failure)), "danger")
    elif mail is not None:
        said = words.message_badge(mail.state)
    else:
        said = v.Badge(label(each.code, reason=_NEVER_MADE), words.register_tone(each.code))
    read = v.Moment(_wall(mail.read_at, zone)) if mail is not None else v.Moment()
    if mail is not None and mail.read_at is None and mail.filed_at is not None:
        read = v.Moment(local(mail.filed_at, zone), "Intégré")
    version = f" (version {each.version})" if each.version is not None else ""
    return v.RegisterReport(
        who=_who(one),
        recipient=_recipient(each),
        mail=f"{'Retrait du compte rendu' if each.withdrawal else 'Compte rendu'}{version}",
        code="ECHEC" if failure is not None else each.code,
        information=said,
        sent=_sent(mail, zone),
        delivered=_delivered(mail, zone),
        read=read,
    )


def _recipient(each: Sending) -> str:
    if each.to_patient:
        return "Le patient"
    return words.formal_name(each.person) if each.person is not None else "Correspondant sans numéro RPPS"


def _who(one: Listed) -> v.RegisterWho:
    return v.RegisterWho(
        reference=one.reference,
        identity=words.identity(one.record, with_birth=False),
        birth_date=words.birth(one.record),
        url=f"/dossiers/{one.id}",
        note=None if one.here and one.state != "annule" else _gone(one),
    )


def _gone(one: Listed) -> v.Badge:
    return words.dossier_badge(one.state) if one.here else v.Badge("Déplacé à une autre séance", "warning")


def _sent(mail: Mail | None, zone: str) -> v.Moment:
    """Return when a mail left; while it has not, what it waits for."""
    if mail is None:
        return v.Moment()
    if mail.sent_at is not None:
        return v.Moment(local(mail.sent_at, zone))
    return v.Moment(text=words.message_badge(mail.state).label)


def _delivered(mail: Mail | None, zone: str) -> v.Moment:
    if mail is None:
        return v.Moment()
    if mail.delivered_at is not None:
        return v.Moment(local(mail.delivered_at, zone))
    late = mail.state in {"retarde", "relaye", "sans-nouvelle"}
    return v.Moment(text=words.message_badge(mail.state).label if late else "")


def as_csv(page: v.Register) -> bytes:
    """Return the register as a French spreadsheet opens it: UTF-8 with its mark, cells parted by semicolons."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=";", lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    held = f"{page.slot.rcp}, {short_date(page.slot.start)} {page.slot.start:%H:%M}"
    for one in page.notices:
        about = (one.physician, one.speciality, "Notification", one.code, "; ".join((one.information.label, *one.more)))
        times = (one.due, one.sent, one.delivered, one.read, one.opened, one.contributed)
        writer.writerow(_cells(held, one.who, about, times))
    for each in page.reports:
        about = (each.recipient, "", each.mail, each.code, each.information.label)
        nothing = v.Moment()
        times = (nothing, each.sent, each.delivered, each.read, nothing, nothing)
        writer.writerow(_cells(held, each.who, about, times))
    return written.getvalue().encode("utf-8-sig")


def _cells(held: str, who: v.RegisterWho, about: Sequence[str], times: Sequence[v.Moment]) -> Sequence[str]:
    said = (held, who.reference, who.identity, who.birth_date, *about, *map(_instant, times))
    return [f"'{one}" if one.startswith(_FORMULA) else one for one in said]


def _instant(one: v.Moment) -> str:
    """Return an instant as a French spreadsheet takes it for one; else what is said in its place."""
    return f"{one.at:%d/%m/%Y %H:%M}" if one.at is not None else one.text


def csv_name(row: RcpSession) -> str:
    """Return the name to save the file under: the meeting's number and day, nobody's name."""
    return f"registre-{row.on:%Y-%m-%d}-{str(row.id)[:8]}.csv"
