"""What a client states of the server's state: versions by entity tag, resources by a search [FHIR R4 http#concurrency].

Promises: tags are read in their weak and strong forms, lists and ``*``, anything else is refused (400); two conditions
that name the same resources hold the same lock, however they are written. Pure: no session, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from gateway.errors import InvalidContent, Unsupported
from gateway.fhir.reading import UNSEARCHED
from gateway.fhir.translate.patient import INS_SYSTEMS

__all__ = ["Tags", "carries", "lock_keys", "only_identifier", "pairs_of", "refuse_unfit", "tags"]

_TAG = re.compile(r'\s*(?:W/)?"([!\x23-\x7e\x80-\xff]*)"\s*')
#: Parameters that control an answer and select nothing: a condition that holds one is not what its writer thinks.
_CONTROLS = frozenset(
    {"_count", "_sort", "_include", "_revinclude", "_summary", "_elements", "_total", "_contained", "_containedType"}
)
#: Parameters of one condition.
_PARAMETERS_MAX = 100
#: Parameters about the form of the answer to the request that carries the condition.
_FORMS = frozenset({"_format", "_pretty"})


@dataclass(frozen=True, slots=True)
class Tags:
    """Versions that a header names; ``any`` for ``*``."""

    any: bool = False
    versions: frozenset[str] = frozenset()

    def hold(self, version: int | None) -> bool:
        """Whether the current version, if there is one, is among them."""
        return version is not None and (self.any or str(version) in self.versions)


def tags(header: str, name: str) -> Tags:
    """Read ``If-Match`` or ``If-None-Match`` [RFC 9110 §13.1.1].

    Raises
    ------
    InvalidContent
        ``etiquette-illisible``.
    """
    if header.strip() == "*":
        return Tags(any=True)
    found = [_TAG.fullmatch(part) for part in header.split(",")]
    if not all(found):
        text = f'En-tête {name} illisible : une version s’écrit W/"3".'
        raise InvalidContent("etiquette-illisible", text, expression=name)
    return Tags(versions=frozenset(match.group(1) for match in found if match))


def pairs_of(query: str) -> list[tuple[str, str]]:
    """Parameters of a condition, without those about the answer's form.

    Raises
    ------
    InvalidContent
        ``condition-vide``: it would name every resource; ``parametre-valeur``; ``condition-illisible``: a parameter
        that selects nothing.
    """
    if "\x00" in unquote(query):  # no text of PostgreSQL holds it
        raise InvalidContent("parametre-valeur", "Valeur invalide dans la condition.")
    # A plus sign stands for a blank in a form, not in a system or a value that a client forgot to escape.
    try:
        said = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX)
    except ValueError:
        raise InvalidContent(
            "parametre-valeur", f"Condition illisible : plus de {_PARAMETERS_MAX} paramètres."
        ) from None
    pairs = [(name, value) for name, value in said if name not in _FORMS]
    if not any(value for _, value in pairs):
        text = "La condition est vide : elle désignerait toutes les ressources."
        raise InvalidContent("condition-vide", text)
    if any(name.partition(":")[0] in _CONTROLS or not value for name, value in pairs):
        text = "Une condition ne porte que des paramètres de recherche, chacun avec sa valeur."
        raise InvalidContent("condition-illisible", text)
    return pairs


def lock_keys(kind: str, pairs: Iterable[tuple[str, str]]) -> set[str]:
    """Keys that hold a condition until its effect is committed.

    A condition on an identifier holds the identifier's value, whatever its system and whatever else it says: two texts
    of one condition, in another order or with another encoding, meet in the same key. Others hold their text, sorted.
    """
    said = sorted(pairs)
    values = [value for name, value in said if name.partition(":")[0] == "identifier"]
    codes = {one.rpartition("|")[2] for value in values for one in re.split(r"(?<!\\),", value)}
    if codes:
        return {f"fhir|{kind}|{code}" for code in codes}
    return {f"fhir|{kind}|{said!r}"}


def only_identifier(pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """System and value of a condition that is one whole identifier and nothing else."""
    said = list(pairs)
    if len(said) != 1 or said[0][0] != "identifier" or "\\" in said[0][1] or "," in said[0][1]:
        return None
    system, bar, value = said[0][1].rpartition("|")
    return (system, value) if bar and system and value else None


def refuse_unfit(kind: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse a condition on a type that has no search, or by which one sender would overwrite another's.

    [spec fhir-fr 3.6]

    Raises
    ------
    Unsupported
        ``recherche-non-offerte``.
    InvalidContent
        ``cle-ins`` (rule).
    """
    if kind in UNSEARCHED:
        raise Unsupported("recherche-non-offerte", f"Le type {kind} n’a pas de recherche, ni donc de condition.")
    if kind == "Patient" and any(system in value for _, value in pairs for system in INS_SYSTEMS):
        text = "L’INS ne peut pas servir de clé d’écriture : utilisez l’identifiant de l’établissement (IPP)."
        raise InvalidContent("cle-ins", text, expression="Patient.identifier", rule=True)


def carries(tree: dict[str, Any], system: str, value: str) -> bool:
    """Whether a resource carries an identifier."""
    said = tree.get("identifier")
    listed = said if isinstance(said, list) else [said]
    return any(isinstance(one, dict) and (one.get("system"), one.get("value")) == (system, value) for one in listed)
