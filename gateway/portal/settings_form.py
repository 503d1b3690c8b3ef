"""The form of an RCP's settings: its settings as inputs, and what comes back as changes.

Promises: one input is made of one setting of `gateway.rcp.rcp_settings` and read back by the same table, in the manner
of the fiche's form; what the form did not hold is no change; every fault stands beside its input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.errors import InvalidContent
from gateway.portal import views as v
from gateway.portal.fiche_form import again, inputs_of, value_of
from gateway.portal.forms import Faults, text
from gateway.rcp.fiche import FicheRules
from gateway.rcp.fiche_fields import sections as fiche_sections
from gateway.rcp.rcp_settings import Setting, groups, judged, settings

__all__ = ["changes_of", "inputs"]

_MANDATORY: Final = "fiche.obligatoires"
_DAYS: Final = "notification.fermetures"
_NO_RULES: Final = FicheRules()


def inputs(known: Mapping[str, Any], given: Mapping[str, str] | None = None) -> tuple[v.FicheSection, ...]:
    """Make the inputs, filled with what holds, or with what was sent and refused."""
    return tuple(
        v.FicheSection(
            group.key,
            group.title,
            tuple(
                again(one, given) for setting in group.settings for one in _inputs(setting, known[setting.field.key])
            ),
        )
        for group in groups()
    )


def _inputs(setting: Setting, value: Any) -> Iterable[v.FicheInput]:
    field = setting.field
    if field.key == _MANDATORY:
        offered = {one.code: one.label for one in field.options}
        for part in fiche_sections():
            boxes = tuple(
                v.Choice(one.key, offered[one.key], selected=one.key in value)
                for one in part.fields
                if one.key in offered
            )
            if boxes:
                yield v.FicheInput(
                    f"{_MANDATORY}.{part.key}", f"Champs obligatoires : {part.title}", "cases", choices=boxes
                )
        return
    if setting.line is not None:
        said = [_french(one) for one in value] if field.key == _DAYS else value
        yield v.FicheInput(field.key, field.label, "texte", value="\n".join(said), hint=field.hint)
        return
    shared = {"required": field.required, "source": ""}
    for one in inputs_of(field, field.key, value, _NO_RULES, (), shared):
        # Where something always holds, nothing is no choice.
        sure = one.kind == "choix" and setting.usual is not None
        yield replace(one, choices=tuple(each for each in one.choices if each.value)) if sure else one


def _french(day: str) -> str:
    return "/".join(reversed(day.split("-")))


def changes_of(given: Mapping[str, str]) -> tuple[dict[str, Any], Faults]:
    """Read the settings that a form held."""
    changes: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for key, setting in settings().items():
        below = [name for name in given if name.startswith(f"{key}.")]
        if key not in given and not below:
            continue
        try:
            changes[key] = judged(setting, _said(setting, given, below))
        except InvalidContent as error:
            faults[next((name for name in (key, *below) if name in given), key)] = error.text
    return changes, faults


def _said(setting: Setting, given: Mapping[str, str], below: Iterable[str]) -> Any:
    key = setting.field.key
    if key == _MANDATORY:
        # Name of a box: the setting, the section under which it stands, the key of the field.
        ticked = {name.removeprefix(f"{key}.").partition(".")[2] for name in below}
        return [one.code for one in setting.field.options if one.code in ticked]
    if setting.line is not None:
        return text(given[key])
    return value_of(setting.field, given, _NO_RULES)
