"""The settings of one RCP, as its organisers write them: how physicians are told, the webconference, the fiche.

Promises: a setting stands here exactly if something reads it; each value is judged before it is kept, and all of them
together by those who read them (`gateway.rcp.sessions.require_readable`); an edit never overwrites unseen what another
organiser wrote meanwhile (two equal edits are one), and the trail says which settings changed and by whom; who agreed
that physicians are told stands with the date beside the setting (E13). What another software keeps beside is left.
Not promised: that a mail which already left is taken back; what is to leave is decided again at the next run.

[spec features S0-063, S0-064, E13, 5.4]
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, Final

import msgspec

from gateway.errors import Conflict, InvalidContent
from gateway.model.meeting import Rcp
from gateway.rcp import access
from gateway.rcp.calendar import CatchUp, CountMode, LimitRule, NoticeRule, holiday_zone, holiday_zones
from gateway.rcp.fiche import URGENT, FicheRules
from gateway.rcp.fiche_fields import Field, Option, check, field_named, fields, sections
from gateway.rcp.sessions import require_readable
from gateway.rcp.step import Step

__all__ = ["Group", "Setting", "edit", "groups", "held", "in_words", "judged", "known", "reading_of", "settings"]

_MOST_LINES: Final = 100
_LABEL_CHARS: Final = 60
_YEARS: Final = range(2000, 2200)
_FRENCH_DAY = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_HTTPS: Final = r"https://[^\s<>\"'\\]{1,480}"
#: Asked of every dossier already, known of every RCP, or said by a setting of its own.
_NEVER_ASKED: Final = frozenset({"motif.question", "motif.type", "etiquettes", "examens.sans_imagerie", "tumeurs"})
_SHARED: Final = ("appareil", "organes", "soins", "recours", "pediatrique")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Parameters
    ----------
    column, name
        Where it is kept: a key of a JSON column of `Rcp`, or the column itself.
    field
        Its kind, label and limits; its key is that of the form.
    usual
        What holds while nobody said anything.
    line
        Of a setting that is written one a line: reads one line, or says why not.
    """

    column: str
    name: str
    field: Field
    usual: Any = None
    line: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Settings under one heading."""

    key: str
    title: str
    settings: tuple[Setting, ...]


def _label(said: str) -> str:
    plain = " ".join(said.split())
    if len(plain) > _LABEL_CHARS:
        raise ValueError(f"une étiquette a {_LABEL_CHARS} caractères au plus")
    if plain.casefold() == URGENT:
        raise ValueError("« urgence » existe déjà dans toutes les RCP")
    return plain


def _day(said: str) -> str:
    french = _FRENCH_DAY.fullmatch(said)
    try:
        read = date(*(int(part) for part in reversed(french.groups()))) if french else date.fromisoformat(said)
    except ValueError:
        raise ValueError("une date s’écrit JJ/MM/AAAA") from None
    if read.year not in _YEARS:
        raise ValueError("cette année n’est pas possible")
    return read.isoformat()


def _yes_no(column: str, name: str, label: str, hint: str = "", *, usual: bool = False) -> Setting:
    return Setting(column, name, Field(key=f"{column}.{name}", label=label, kind="oui-non", hint=hint), usual)


def _choice(column: str, name: str, label: str, said: Mapping[str, str], usual: str) -> Setting:
    options = tuple(Option(code, words) for code, words in said.items())
    key = f"{column}.{name}" if name else column
    return Setting(column, name, Field(key=key, label=label, kind="code", options=options, required=True), usual)


def _line(column: str, name: str, label: str, pattern: str, hint: str, *, usual: str | None = None) -> Setting:
    shape = Field(key=f"{column}.{name}", label=label, kind="ligne", pattern=pattern, hint=hint)
    return Setting(column, name, msgspec.structs.replace(shape, required=usual is not None), usual)


def _number(name: str, label: str, low: int, high: int, usual: int, hint: str = "") -> Setting:
    key = f"notification.{name}"
    shape = Field(key=key, label=label, kind="entier", hint=hint, min=low, max=high, required=True)
    return Setting("notification", name, shape, usual)


def _lines(column: str, name: str, label: str, hint: str, line: Callable[[str], str]) -> Setting:
    return Setting(column, name, Field(key=f"{column}.{name}", label=label, kind="texte", hint=hint), (), line)


@cache
def groups() -> tuple[Group, ...]:
    """Every setting, in the order of its reading."""
    rule, late = NoticeRule(), CatchUp()
    asked = tuple(
        Option(one.key, one.label) for part in sections() for one in part.fields if one.key not in _NEVER_ASKED
    )
    mandatory = Field(key="fiche.obligatoires", label="Champs obligatoires", kind="codes", options=asked)
    told = "notification"
    return (
        Group(
            "notification",
            "Information des médecins traitants avant la réunion",
            (
                _yes_no(told, "active", "Les médecins traitants sont informés avant la réunion"),
                _number("jours", "Nombre de jours avant la réunion", 1, 60, rule.days, "De 1 à 60"),
                _choice(
                    told,
                    "calendrier",
                    "Jours comptés",
                    {
                        CountMode.OUVRES.value: "Jours ouvrés : sans week-ends ni jours fériés",
                        CountMode.HORS_WE.value: "Sans week-ends ; les jours fériés comptent",
                    },
                    rule.mode.value,
                ),
                _line(
                    told,
                    "heure_envoi",
                    "Heure d’envoi",
                    r"([01]\d|2[0-3]):[0-5]\d",
                    "Par exemple 08:00",
                    usual=rule.send_at.isoformat("minutes"),
                ),
                _choice(
                    told,
                    "limite",
                    "Le jour de l’envoi, un dossier est pris en compte jusqu’à",
                    {
                        LimitRule.HEURE_SEANCE.value: "L’heure de la réunion",
                        LimitRule.HEURE_ENVOI.value: "L’heure d’envoi",
                        LimitRule.FIN_DE_JOURNEE.value: "La fin de la journée",
                    },
                    rule.limit.value,
                ),
                _yes_no(told, "rattrapage", "Un dossier inscrit trop tard est notifié quand même, s’il reste du temps"),
                _number(
                    "rattrapage_min_heures",
                    "Temps qui doit rester, en heures",
                    1,
                    240,
                    int(late.minimum_hours),
                    "De 1 à 240",
                ),
                _yes_no(
                    told,
                    "renotification_auto",
                    "Un médecin déjà informé est informé des changements",
                    "Date, lien, séance annulée, dossier retiré ; sinon la page de la séance dit qui prévenir",
                ),
                _yes_no(told, "reponse_mail", "Le médecin peut répondre par messagerie", usual=True),
                _choice(told, "format_heure", "Écriture des heures", {"18h30": "18h30", "18 h 30": "18 h 30"}, "18h30"),
            ),
        ),
        Group(
            "compte-rendu",
            "Envoi du compte rendu",
            (
                _yes_no(
                    told,
                    "cr_par_lien",
                    "Les destinataires reçoivent un lien vers le compte rendu, pas le document",
                    "Qui a déjà reçu le document reçoit celui qui le remplace",
                ),
                _yes_no(
                    told,
                    "patient",
                    "Le patient reçoit le compte rendu dans Mon espace santé",
                    "Une fois la restriction « non visible par le patient » levée, si son INS est qualifiée",
                ),
            ),
        ),
        Group(
            "jours",
            "Jours non travaillés",
            (
                _choice("holidays", "", "Jours fériés de", {one.id: one.label for one in holiday_zones()}, "metropole"),
                _yes_no(told, "pentecote_travaillee", "Le lundi de Pentecôte est travaillé (journée de solidarité)"),
                _yes_no(told, "usages_locaux", "Les jours chômés par usage local comptent comme fériés"),
                _lines(told, "fermetures", "Fermetures propres à cette RCP", "Une date par ligne, JJ/MM/AAAA", _day),
            ),
        ),
        Group(
            "webconference",
            "Webconférence",
            (
                _line("webconference", "lien", "Lien", _HTTPS, "Une adresse https://"),
                Setting(
                    "webconference",
                    "complement",
                    Field(
                        key="webconference.complement",
                        label="Complément",
                        kind="texte",
                        hint="Code d’accès, numéro de téléphone ; ce texte est écrit aux médecins informés",
                    ),
                ),
                _line("webconference", "test", "Lien pour essayer son poste", _HTTPS, "Une adresse https://"),
                _yes_no(
                    "webconference",
                    "agenda",
                    "Le demandeur qui vient à distance reçoit la réunion pour son agenda",
                    "Un fichier .ics joint à son courriel ; aucun patient n’y est nommé",
                ),
            ),
        ),
        Group(
            "fiche",
            "Ce que la fiche demande",
            (
                Setting("fiche", "obligatoires", mandatory, ()),
                _lines("fiche", "etiquettes", "Étiquettes, en plus de « Urgence »", "Une par ligne", _label),
                _yes_no("fiche", "etiquettes_obligatoires", "Un dossier doit porter une étiquette au moins"),
            ),
        ),
        Group(
            "commun",
            "Ce qui est le même pour tous les dossiers",
            tuple(
                Setting("fiche", name, msgspec.structs.replace(field_named(f"motif.{name}"), key=f"fiche.{name}"), None)
                for name in _SHARED
            ),
        ),
    )


@cache
def settings() -> Mapping[str, Setting]:
    """Every setting by its key."""
    return {one.field.key: one for group in groups() for one in group.settings}


def judged(setting: Setting, value: Any) -> Any:
    """Return a value as it is kept; what is written one a line may come as one text.

    Raises
    ------
    InvalidContent
        ``champ-invalide``, ``code-inconnu``: the text names the setting, and the line.
    """
    if setting.line is not None:
        return _several(setting, setting.line, value)
    found = check(setting.field, value)
    if found is None and setting.field.required:
        text = f"Le champ « {setting.field.label} » ne peut pas rester vide."
        raise InvalidContent("champ-invalide", text, expression=setting.field.key, rule=True)
    return [] if found is None and setting.usual == () else found


def _several(setting: Setting, line: Callable[[str], str], value: Any) -> list[str]:
    said = value.splitlines() if isinstance(value, str) else list(value or ())
    if len(said) > _MOST_LINES:
        text = f"Le champ « {setting.field.label} » dépasse {_MOST_LINES} lignes."
        raise InvalidContent("champ-invalide", text, expression=setting.field.key, rule=True)
    found: dict[str, str] = {}
    for number, one in enumerate(said, 1):
        if not str(one).strip():
            continue
        try:
            read = line(str(one).strip())
        except ValueError as error:
            text = f"« {setting.field.label} », ligne {number} : {error}."
            raise InvalidContent("champ-invalide", text, expression=setting.field.key, rule=True) from error
        found.setdefault(read.casefold(), read)
    return list(found.values())


def known(rcp: Rcp) -> dict[str, Any]:
    """Return what holds for an RCP, by key; a kept value that cannot be read is the usual one."""
    return {key: _held_value(rcp, one) for key, one in settings().items()}


def _held_value(rcp: Rcp, setting: Setting) -> Any:
    column = getattr(rcp, setting.column)
    if not setting.name:
        return _zone(column)
    said = (column or {}).get(setting.name)
    try:
        found = judged(setting, said) if said is not None else None
    except (InvalidContent, TypeError):
        found = None
    if found is None:
        return list(setting.usual) if isinstance(setting.usual, tuple) else setting.usual
    return found


def _zone(said: str) -> str:
    """A territory may be kept by one of its other names."""
    try:
        return holiday_zone(said).id
    except InvalidContent:
        return said


def reading_of(rcp: Rcp) -> str:
    """Name what somebody who reads the settings now reads: equal for equal values."""
    return hashlib.sha256(msgspec.json.encode(known(rcp), order="sorted")).hexdigest()


def held(step: Step, rcp_id: uuid.UUID) -> Rcp:
    """Lock an RCP that the caller organises.

    Raises
    ------
    NotFound, Forbidden
        As `gateway.rcp.access.require_role`: no part in it, or one that does not suffice.
    """
    access.require_role(step.session, step.caller, rcp_id, access.ORGANISERS)
    [rcp] = step.lock(Rcp, rcp_id)
    return rcp


def edit(step: Step, rcp_id: uuid.UUID, changes: Mapping[str, Any], *, expected: str | None = None) -> Rcp:
    """Write settings; what is not among the changes stays.

    Parameters
    ----------
    expected
        What the organiser read (`reading_of`).

    Raises
    ------
    NotFound, Forbidden
        As `held`.
    Conflict
        ``reglages-changes``: somebody else wrote since they were read.
    InvalidContent
        ``champ-inconnu``, ``champ-invalide``, ``code-inconnu``, ``reglage-invalide``.
    """
    rcp = held(step, rcp_id)
    now = known(rcp)
    wanted = {key: judged(_setting(key), value) for key, value in changes.items()}
    changed = {key: value for key, value in wanted.items() if value != now[key]}
    if not changed:
        return rcp
    if expected is not None and expected != reading_of(rcp):
        text = "Quelqu’un d’autre a modifié les réglages depuis que vous les avez ouverts : relisez-les."
        raise Conflict("reglages-changes", text)
    for key, value in changed.items():
        _write(rcp, _setting(key), value)
    if "notification.active" in changed:
        agreed = {"par": step.caller.name, "le": step.now.isoformat()} if changed["notification.active"] else None
        rcp.notification = _with(rcp.notification, "accord", agreed)
    # What another version kept and nothing reads would refuse the whole.
    rcp.fiche = {name: value for name, value in rcp.fiche.items() if name in FicheRules.__struct_fields__}
    require_readable(rcp)
    step.touch(rcp)
    step.audit(
        "modification",
        action="U",
        object_type="Rcp",
        object_id=str(rcp.id),
        detail={"reglages": sorted(changed)},
    )
    return rcp


def _setting(key: str) -> Setting:
    found = settings().get(key)
    if found is None:
        raise InvalidContent("champ-inconnu", "Une RCP n’a pas de réglage de ce nom.", rule=True)
    return found


def _write(rcp: Rcp, setting: Setting, value: Any) -> None:
    if not setting.name:
        setattr(rcp, setting.column, value)
    else:
        setattr(rcp, setting.column, _with(getattr(rcp, setting.column), setting.name, value))


def _with(kept: Mapping[str, Any] | None, name: str, value: Any) -> dict[str, Any]:
    """A new object, because changes inside a JSON value are not seen; what says nothing leaves no key."""
    rest = {key: one for key, one in (kept or {}).items() if key != name}
    return rest if value in (None, [], "") else {**rest, name: value}


def in_words(setting: Setting, value: Any) -> str:
    """Say a value as the page shows it."""
    if isinstance(value, bool):
        return "oui" if value else "non"
    if isinstance(value, list | tuple):
        asked = fields() if setting.name == "obligatoires" else {}
        return ", ".join(asked[one].label if one in asked else str(one) for one in value) or "rien"
    return "rien" if value is None else str(value)
