"""The last act: the dossier's life as the audit trail tells it, and what no log may say [spec audit §2]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import or_, select

from gateway.app.components import audit_faults
from gateway.app.gateway import open_gateway
from gateway.demo import fixtures
from gateway.demo.narration import NotSeen, french_instant
from gateway.demo.theatre import Theatre
from gateway.model.audit import AuditLine
from gateway.model.dossier import Dossier
from gateway.rcp.dossier_states import LABELS
from gateway.settings import load

__all__ = ["canaries", "tell_timeline"]

_NUMBER = "urn:uuid:6a1f3f0e-5a55-4c2c-9a51-0c6f7d2c8d10"
_WORDS = {
    "recherche": "cherche",
    "consultation": "lit",
    "creation": "crée",
    "modification": "modifie",
    "validation": "valide",
    "imagerie": "regarde",
    "envoi": "envoie",
    "import": "importe",
    "opposition": "enregistre une opposition :",
    "refus": "se voit refuser",
}
_OBJECTS = {
    "Patient": "la fiche de la patiente",
    "Condition": "la tumeur",
    "Dossier": "le dossier",
    "QuestionnaireResponse": "la pré-fiche",
    "ServiceRequest": "l’inscription",
    "Task": "l’état du dossier",
    "Study": "le scanner",
    "ImagingStudy": "le scanner",
    "Rendered": "une coupe du scanner",
    "Instance": "une coupe du scanner",
    "Message": "un message",
    "Contribution": "sa contribution",
    "RcpSession": "la séance",
    "Report": "le compte rendu",
    "DocumentReference": "le compte rendu",
    "Binary": "le document",
}
_MAILS = {"M1": "la notification préalable", "M2": "l’avis de contribution", "M6": "le compte rendu"}


class _Line(msgspec.Struct):
    recorded: datetime
    event: str
    action: str = "R"
    outcome: str = "0"
    actor_id: str | None = None
    actor_name: str | None = None
    wire: str | None = None
    object_type: str | None = None
    object_id: str | None = None
    recipient: str | None = None
    reason: str | None = None
    happened: datetime | None = None
    detail: dict[str, str | int] | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """Consecutive lines that say the same, told once."""

    line: _Line
    times: int


def canaries() -> tuple[bytes, ...]:
    """What names the story's patient and so may stand in no log: birth name, INS, birth date."""
    patient = fixtures.story("inscription")["entry"][0]["resource"]
    ins = next(one["value"] for one in patient["identifier"] if one["system"].startswith("urn:oid:1.2.250.1.213.1.4"))
    return patient["name"][0]["family"].encode(), ins.encode(), patient["birthDate"].encode()


def tell_timeline(theatre: Theatre) -> None:
    """Print the dossier's timeline from the trail, verify the trail, and look for a patient in the logs."""
    narrator = theatre.narrator
    lines = list(_lines(theatre))
    if not lines:
        raise NotSeen("Piste d’audit", "aucune ligne ne cite le dossier")
    if not any(line.event == "refus" for line in lines):
        raise NotSeen("Piste d’audit", "la tentative du confrère n’y est pas")
    file = narrator.write("09-piste.json", msgspec.json.format(msgspec.json.encode(lines), indent=1))
    reads = sum(line.event in {"recherche", "consultation"} for line in lines)
    narrator.seen(
        "La piste nomme chaque lecture, chaque changement et chaque envoi",
        wire="audit",
        outcome=f"{len(lines)} lignes, dont {reads} lectures et recherches",
        file=file,
    )
    narrator.say()
    day = ""
    for told in _folded([line for line in lines if line.event != "recherche"]):
        when = french_instant(theatre.stage.in_the_story(told.line.recorded))
        today, _, hour = when.partition(", ")
        if today != day:
            narrator.say(today, indent=6)
            day = today
        narrator.say(f"{hour:>8}  {_sentence(told)}", indent=8)
    narrator.say()
    faults = audit_faults(load({**theatre.stage.environment, "RCP_CLOCK": ""}))
    if faults:
        raise NotSeen("Vérification de la piste", faults[0])
    narrator.seen("Aucune ligne n’a été retirée, changée ou déplacée", wire="audit", outcome="rcp-gateway audit verify")
    log = theatre.stage.log.read_bytes()
    if any(canary in log for canary in canaries()):
        raise NotSeen("Journaux sans patient", f"l’identité de la patiente figure dans {theatre.stage.log.name}")
    narrator.seen(
        "Aucun journal ne nomme la patiente", wire="journaux", outcome=f"{len(log.splitlines())} lignes relues"
    )


def _lines(theatre: Theatre) -> Iterator[_Line]:
    environment = {**theatre.stage.environment, "RCP_CLOCK": ""}
    with open_gateway(load(environment)) as gateway, gateway.store.session() as session:
        dossier = session.scalar(select(Dossier).where(Dossier.number == _NUMBER))
        if dossier is None:
            return
        rows = session.scalars(
            select(AuditLine)
            .where(
                or_(
                    AuditLine.dossier == dossier.id,
                    AuditLine.persons.contains([dossier.record_id]),
                    AuditLine.event == "refus",
                )
            )
            .order_by(AuditLine.seq)
        )
        for row in rows:
            line = msgspec.json.decode(row.payload, type=_Line)
            if line.event != "refus" or line.object_id == str(dossier.id):
                yield line


def _folded(lines: list[_Line]) -> Iterator[_Told]:
    same: list[_Line] = []
    for line in lines:
        if same and _said(same[0]) != _said(line):
            yield _Told(same[0], len(same))
            same = []
        same.append(line)
    if same:
        yield _Told(same[0], len(same))


def _said(line: _Line) -> tuple[object, ...]:
    return line.event, line.action, line.actor_id, line.object_type, line.recipient, str(line.detail)


def _sentence(told: _Told) -> str:
    line, detail = told.line, told.line.detail or {}
    who = line.actor_name or "La passerelle"
    state = detail.get("vers")
    if line.object_type == "Dossier" and isinstance(state, str):
        return f"{who} : le dossier est « {LABELS.get(state, state).lower()} »"
    if (line.reason or "").startswith("rattachement"):
        return "La passerelle rattache le scanner au dossier, par l’IPP et son domaine"
    verb = "dépose" if line.event == "imagerie" and line.action == "C" else _WORDS.get(line.event, line.event)
    what = _OBJECTS.get(line.object_type or "", line.object_type or "")
    if line.object_type == "Message":
        what = _MAILS.get(str(detail.get("kind") or detail.get("type")), what)
        # One line when the message is kept with its step, one when the operator has taken it.
        verb = "prépare" if line.event == "creation" else verb
    whom = f" pour {line.recipient}" if line.recipient else ""
    times = f" ({told.times} fois)" if told.times > 1 else ""
    return f"{who} {verb} {what}{whom}{times}"
