"""The form of the fiche: its fields as inputs, and what comes back as changes.

Promises: one input is made of one field of ``mappings/FRCP-fiche.json`` and read back by the same table; what the form
did not hold is no change; every fault stands beside its input, and nothing is written while there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from gateway.errors import InvalidContent
from gateway.portal import views as v
from gateway.portal.forms import Faults, text
from gateway.rcp.fiche import URGENT, FicheRules, Statement, in_words
from gateway.rcp.fiche_fields import Field, Section, check, concept_of, fields, sections
from gateway.terminology import code_list

__all__ = ["again", "changes_of", "datalists", "inputs", "inputs_of", "value_of"]

#: Lists too long for a menu: typed by code or words, offered as one types.
_LONG: Final = 60
#: Empty places offered after what is filled, as there is no script to add some.
_SPARE_ROWS: Final = 1
_SPARE_CODES: Final = 2
_PLACE = re.compile(r"\[(\d+)\]\.?")
_YES_NO: Final = (("", "–"), ("oui", "Oui"), ("non", "Non"))
#: Field → where its value is one of a few that the page knows: members of the RCP for the presenter.
People = tuple[tuple[str, str], ...]


def inputs(
    known: Mapping[str, Statement],
    rules: FicheRules,
    people: People,
    given: Mapping[str, str] | None = None,
    *,
    among: Sequence[Section] | None = None,
) -> tuple[v.FicheSection, ...]:
    """Make the inputs, filled with what is known, or with what was sent and refused.

    Parameters
    ----------
    among
        The sections; those of the fiche if none are named.
    """
    required = {*rules.obligatoires, "motif.question"}
    made = []
    for section in sections() if among is None else among:
        found: list[v.FicheInput] = []
        for field in section.fields:
            value = known[field.key].value if field.key in known else None
            shared = {"required": field.key in required, "source": _source(known.get(field.key))}
            found += inputs_of(field, field.key, value, rules, people, shared)
        made.append(v.FicheSection(section.key, section.title, tuple(again(one, given) for one in found)))
    return tuple(made)


def _source(one: Statement | None) -> str:
    if one is None:
        return ""
    if one.by:
        return f"Saisi par {one.by}"
    return _SOURCES.get(one.source, "Dossier de l’établissement")


_SOURCES: Final = {
    "rcp": "Réglage de la RCP",
    "compte-rendu": "Repris du compte rendu",
    "portail": "",
    "inscription": "Demande d’inscription",
}


def inputs_of(
    field: Field, name: str, value: Any, rules: FicheRules, people: People, shared: Mapping[str, Any]
) -> Iterable[v.FicheInput]:
    """Make the inputs of one field: several where it holds several."""
    if field.kind == "groupe":
        objects = [*(value or ()), *({} for _ in range(_SPARE_ROWS))]
        for index, one in enumerate(objects):
            for part in field.fields:
                of = {"required": False, "source": shared["source"] if one else ""}
                label = f"{field.label} {index + 1} : "
                for made in inputs_of(part, f"{name}.{index}.{part.key}", one.get(part.key), rules, people, of):
                    yield v.FicheInput(**{**vars(made), "label": label + made.label[:1].lower() + made.label[1:]})
    elif field.kind == "codes" and not field.options:
        places = [*(value or ()), *("" for _ in range(_SPARE_CODES))]
        for index, code in enumerate(places):
            label = field.label if index == 0 else f"{field.label} ({index + 1})"
            of = {**shared, "required": shared["required"] and index == 0}
            yield _one(field, f"{name}.{index}", label, code, _choices(field), of)
    elif field.kind in {"codes", "etiquettes"}:
        offered = (
            ((URGENT, "Urgence"), *((one, one) for one in rules.etiquettes))
            if field.kind == "etiquettes"
            else tuple((one.code, one.label) for one in field.options)
        )
        boxes = tuple(v.Choice(code, label, selected=code in (value or ())) for code, label in offered)
        yield v.FicheInput(name, field.label, "cases", choices=boxes, **shared)
    else:
        choices = (("", "–"), *people) if field.key == "presentateur" else _choices(field)
        yield _one(field, name, field.label, value, choices, shared)


def _one(
    field: Field, name: str, label: str, value: Any, choices: tuple[tuple[str, str], ...], shared: Mapping[str, Any]
) -> v.FicheInput:
    said = "" if value is None else ("oui" if value else "non") if isinstance(value, bool) else str(value)
    if choices:
        listed = tuple(v.Choice(code, words, selected=code == said) for code, words in choices)
        if said and not any(one.selected for one in listed):
            listed = (*listed, v.Choice(said, said, selected=True))
        return v.FicheInput(name, label, "choix", value=said, choices=listed, hint=field.hint, **shared)
    if field.kind == "code" and said:
        said = f"{said} – {in_words(field, said)}"
    datalist = field.list_name or "" if field.kind == "code" else ""
    hint = field.hint or ("AAAA, AAAA-MM ou AAAA-MM-JJ" if field.kind == "date" else "")
    hint = hint or ("Code, ou premiers mots du libellé" if datalist else "")
    kind = "texte" if field.kind == "texte" else "ligne"
    return v.FicheInput(name, label, kind, value=said, hint=hint, datalist=datalist, **shared)


def _choices(field: Field) -> tuple[tuple[str, str], ...]:
    if field.kind == "oui-non":
        return _YES_NO
    if field.kind == "entier" and field.max < 10:
        return (("", "–"), *((str(n), str(n)) for n in range(field.min, field.max + 1)))
    if field.options:
        return (("", "–"), *((one.code, one.label) for one in field.options))
    if field.list_name is not None and len(code_list(field.list_name)) <= _LONG:
        listed = ((one.code, one.label[:1].upper() + one.label[1:]) for one in code_list(field.list_name))
        return (("", "–"), *listed)
    return ()


def again(one: v.FicheInput, given: Mapping[str, str] | None) -> v.FicheInput:
    """Show an input with what was sent and refused."""
    if given is None or (one.name not in given and one.kind != "cases"):
        return one
    if one.kind == "cases":
        boxes = tuple(v.Choice(c.value, c.label, selected=f"{one.name}.{c.value}" in given) for c in one.choices)
        return v.FicheInput(**{**vars(one), "choices": boxes})
    said = given[one.name]
    listed = tuple(v.Choice(c.value, c.label, selected=c.value == said) for c in one.choices)
    return v.FicheInput(**{**vars(one), "value": said, "choices": listed})


def datalists() -> tuple[v.FicheList, ...]:
    """Make the lists that are offered as one types, each once a page."""
    wanted = {field.list_name: field for field in fields().values() if field.kind == "code" and field.list_name}
    return tuple(
        v.FicheList(name, tuple(f"{one.code} – {one.label}" for one in code_list(name)))
        for name in wanted
        if len(code_list(name)) > _LONG
    )


# --- What comes back -------------------------------------------------------------------------------------------------


def changes_of(
    given: Mapping[str, str], rules: FicheRules, *, among: Iterable[Field] | None = None
) -> tuple[dict[str, Any], Faults]:
    """Read the fields that a form held: those of the fiche if none are named."""
    changes: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for field in fields().values() if among is None else among:
        if not any(name == field.key or name.startswith(f"{field.key}.") for name in given):
            continue
        if field.kind != "groupe" and field.key not in given and not _listed(field):
            continue
        try:
            changes[field.key] = check(field, value_of(field, given, rules))
        except InvalidContent as error:
            where = _PLACE.sub(r".\1.", error.expression or field.key).rstrip(".")
            # Beside the very input, else beside the first of its field.
            beside = (name for name in (where, field.key, f"{field.key}.0") if name in given)
            faults[next(beside, field.key)] = error.text
    return changes, faults


def _listed(field: Field) -> bool:
    return field.kind in {"codes", "etiquettes"}


def value_of(field: Field, given: Mapping[str, str], rules: FicheRules) -> Any:
    """Read the value of one field out of its inputs, not judged yet."""
    prefix = f"{field.key}."
    below = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    if field.kind == "groupe":
        return _objects(field, below)
    if field.kind == "codes" and not field.options:
        return [_typed(field, below[place]) for place in sorted(below, key=_rank) if below[place].strip()]
    if field.kind == "codes":
        return [one.code for one in field.options if one.code in below]
    if field.kind == "etiquettes":
        return [one for one in (URGENT, *rules.etiquettes) if one in below]
    return _typed(field, given[field.key])


def _rank(place: str) -> int:
    return int(place) if place.isdecimal() else 0


def _objects(field: Field, below: Mapping[str, str]) -> list[dict[str, Any]]:
    parts = {part.key: part for part in field.fields}
    found: dict[int, dict[str, Any]] = {}
    for name, value in below.items():
        index, _, key = name.partition(".")
        if index.isdecimal() and len(index) < 4 and key in parts and value.strip():
            found.setdefault(int(index), {})[key] = _typed(parts[key], value)
    return [found[index] for index in sorted(found)]


def _typed(field: Field, value: str) -> Any:
    """Read one input: a code may be typed with its label, or by its label alone."""
    said = text(value)
    if field.kind != "code" or not said or concept_of(field, said) is not None:
        return said
    first = said.partition(" – ")[0].strip()
    if concept_of(field, first) is not None or field.list_name is None:
        return first
    return next((one.code for one in code_list(field.list_name) if one.label.casefold() == said.casefold()), said)
