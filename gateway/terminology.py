"""Code lists and tables of facts, read once from ``mappings/``.

Promises: every file of ``mappings/`` names its source, its version and its date, and holds no code twice, or nothing is
loaded at all; a list answers with typed concepts; a code that a list does not hold is refused by `CodeList.require`
and by `concept`, and is merely absent from `CodeList.get`, for the wires that keep and flag what they do not know
(the lists are photographs of live national tables).

Not promised: that a list is complete (`JDV_J10` is a selection) or current.

Lists bear the national name (``TRE_R38-SpecialiteOrdinale``); `code_list` also takes the part before the first hyphen
when it is enough (``TRE_R38``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gateway.errors import Fault, InvalidContent

__all__ = [
    "CodeList",
    "Concept",
    "Terminologies",
    "code_list",
    "concept",
    "load",
    "mappings_dir",
    "oid_of_system",
    "specialty_groups",
    "system_of_oid",
    "table",
]

_ORIGIN = ("source", "version", "date")
_CODES_HEADER = ("name", "title")
_CONCEPT_FIELDS = ("code", "label", "oid", "system", "ended")
_NOTHING: Mapping[str, Any] = MappingProxyType({})

# Code systems that are not national tables of ours, and so have no file: OID to FHIR canonical. [spec fhir-fr 0.5]
_FOREIGN_SYSTEMS: Mapping[str, str] = MappingProxyType(
    {
        "2.16.840.1.113883.6.1": "http://loinc.org",
        "2.16.840.1.113883.6.96": "http://snomed.info/sct",
        "2.16.840.1.113883.6.8": "http://unitsofmeasure.org",
        "2.16.840.1.113883.6.3": "https://smt.esante.gouv.fr/terminologie-cim-10",
        "2.16.840.1.113883.6.43.1": "http://terminology.hl7.org/CodeSystem/icd-o-3",
        "2.16.840.1.113883.3.26.1.1": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
        "2.16.840.1.113883.5.25": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
        "2.16.840.1.113883.5.88": "http://terminology.hl7.org/CodeSystem/v3-ParticipationFunction",
        "1.2.250.1.213.1.1.4.322": "https://smt.esante.gouv.fr/fhir/CodeSystem/terminologie-cisis",
        "1.2.250.1.213.2.29": "https://mos.esante.gouv.fr/NOS/TRE_R39-Competence/FHIR/TRE-R39-Competence",
    }
)


@dataclass(frozen=True, slots=True)
class Concept:
    """One code of one list.

    Parameters
    ----------
    code, label
        As the source prints them.
    oid
        OID of the code system that defines the code, for CDA, HL7 v2 and XDS; None when the source gives none.
    system
        Canonical URL of that code system for FHIR; None when it is not known.
    ended
        Why or since when the code is closed for new use; it stays readable in old records.
    properties
        What else the list says of the code, by the name its file uses.
    """

    code: str
    label: str
    oid: str | None = None
    system: str | None = None
    ended: str | None = None
    properties: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, compare=False)


@dataclass(frozen=True, slots=True)
class CodeList:
    """One national or own list, with where it comes from."""

    name: str
    title: str
    source: str
    version: str
    date: str
    oid: str | None
    system: str | None
    valueset: str | None
    valueset_oid: str | None
    concepts: Mapping[str, Concept]

    def __contains__(self, code: object) -> bool:
        return code in self.concepts

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts.values())

    def __len__(self) -> int:
        return len(self.concepts)

    def get(self, code: str) -> Concept | None:
        """Return the concept, or None: for what came from a wire, kept and flagged."""
        return self.concepts.get(code)

    def require(self, code: str, *, expression: str | None = None) -> Concept:
        """Return the concept, or refuse: for forms and for what we write ourselves.

        Raises
        ------
        InvalidContent
            ``code-inconnu``; the text names the list, never the value received.
        """
        found = self.concepts.get(code)
        if found is None:
            text = f"Ce code n’appartient pas à la liste « {self.title} » ({self.name})."
            raise InvalidContent("code-inconnu", text, expression=expression, rule=True)
        return found

    def label(self, code: str) -> str:
        """Return the label of a code that `require` accepts."""
        return self.require(code).label


@dataclass(frozen=True, slots=True)
class Terminologies:
    """All of one ``mappings/`` directory, checked."""

    lists: Mapping[str, CodeList]
    tables: Mapping[str, Mapping[str, Any]]
    systems: Mapping[str, str]
    short_names: Mapping[str, str]


def mappings_dir() -> Path:
    """Return where ``mappings/`` stands: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for directory in (package / "mappings", package.parent / "mappings"):
        if directory.is_dir():
            return directory
    raise Fault("tables-absentes", "Les tables de terminologie ne sont pas installées.")


def load(directory: Path) -> Terminologies:
    """Read and check every ``*.json`` of a directory.

    Raises
    ------
    Fault
        ``table-invalide``: unreadable, without a header field, named unlike its file, or with a code twice.
    """
    lists: dict[str, CodeList] = {}
    tables: dict[str, Mapping[str, Any]] = {}
    systems = dict(_FOREIGN_SYSTEMS)
    codes: dict[Path, dict[str, Any]] = {}
    for path in sorted(directory.glob("*.json")):
        raw = _read(path)
        if raw.get("kind") != "codes":
            tables[path.stem] = MappingProxyType(raw)
            continue
        codes[path] = raw
        if raw.get("oid") and raw.get("system"):
            _claim(systems, raw["oid"], raw["system"], path)
    for path, raw in codes.items():
        lists[raw["name"]] = _code_list(raw, systems, path)
    return Terminologies(
        lists=MappingProxyType(lists),
        tables=MappingProxyType(tables),
        systems=MappingProxyType(systems),
        short_names=MappingProxyType(_short_names(lists)),
    )


@cache
def _loaded() -> Terminologies:
    return load(mappings_dir())


def code_list(name: str) -> CodeList:
    """Return one list by its name or its short name; an unknown name is a defect of ours."""
    loaded = _loaded()
    found = loaded.lists.get(loaded.short_names.get(name, name))
    if found is None:
        raise Fault("liste-inconnue", f"La liste de codes « {name} » n’existe pas.")
    return found


def concept(name: str, code: str, *, expression: str | None = None) -> Concept:
    """Return one concept of one list, or refuse (`CodeList.require`)."""
    return code_list(name).require(code, expression=expression)


def table(name: str) -> Mapping[str, Any]:
    """Return a table that is not a code list (holidays, field maps) as its file holds it, by the file's name."""
    found = _loaded().tables.get(name)
    if found is None:
        raise Fault("table-inconnue", f"La table « {name} » n’existe pas.")
    return found


def system_of_oid(oid: str) -> str:
    """Return the FHIR canonical of a code system, ``urn:oid:…`` when it has none here."""
    return _loaded().systems.get(oid, f"urn:oid:{oid}")


def oid_of_system(system: str) -> str | None:
    """Return the OID of a code system given by its FHIR canonical or as ``urn:oid:…``."""
    if system.startswith("urn:oid:"):
        return system.removeprefix("urn:oid:")
    return next((oid for oid, url in _loaded().systems.items() if url == system), None)


def specialty_groups(code: str) -> frozenset[str]:
    """Return the quorum groups a specialty or know-how code counts for; empty when it counts for none.

    A quorum of distinct specialities counts groups, not codes: one speciality has several codes.
    """
    groups = code_list("RCP-groupes-specialites")
    return frozenset(group.code for group in groups if code in group.properties["members"])


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes(), object_pairs_hook=_object)
    except ValueError as error:
        raise _invalid(path, "illisible") from error
    if not isinstance(raw, dict):
        raise _invalid(path, "sans en-tête")
    header = _ORIGIN + (_CODES_HEADER if raw.get("kind") == "codes" else ())
    missing = [name for name in header if not isinstance(raw.get(name), str) or not raw[name]]
    if missing:
        raise _invalid(path, f"en-tête incomplet : {', '.join(missing)}")
    if raw.get("name", path.stem) != path.stem:
        raise _invalid(path, "son nom n’est pas celui du fichier")
    return raw


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return read


def _code_list(raw: dict[str, Any], systems: Mapping[str, str], path: Path) -> CodeList:
    concepts: dict[str, Concept] = {}
    for row in raw.get("concepts") or ():
        code, label = (row.get("code"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not (isinstance(code, str) and code and isinstance(label, str) and label):
            raise _invalid(path, "un code ou un libellé manque")
        if code in concepts:
            raise _invalid(path, f"le code {code} y figure deux fois")
        oid = row.get("oid", raw.get("oid"))
        concepts[code] = Concept(
            code=code,
            label=label,
            oid=oid,
            system=row.get("system") or raw.get("system") or systems.get(oid),
            ended=row.get("ended"),
            properties=MappingProxyType({key: value for key, value in row.items() if key not in _CONCEPT_FIELDS}),
        )
    if not concepts:
        raise _invalid(path, "aucun code")
    return CodeList(
        name=raw["name"],
        title=raw["title"],
        source=raw["source"],
        version=raw["version"],
        date=raw["date"],
        oid=raw.get("oid"),
        system=raw.get("system"),
        valueset=raw.get("valueset"),
        valueset_oid=raw.get("valueset_oid"),
        concepts=MappingProxyType(concepts),
    )


def _claim(systems: dict[str, str], oid: str, system: str, path: Path) -> None:
    if systems.setdefault(oid, system) != system:
        raise _invalid(path, f"l’OID {oid} a déjà un autre système")


def _short_names(lists: Mapping[str, CodeList]) -> dict[str, str]:
    """Return the part before the first hyphen where only one list bears it."""
    bearers: dict[str, list[str]] = {}
    for name in lists:
        bearers.setdefault(name.partition("-")[0], []).append(name)
    return {short: names[0] for short, names in bearers.items() if len(names) == 1}


def _invalid(path: Path, why: str) -> Fault:
    return Fault("table-invalide", f"La table {path.name} ne peut pas être utilisée : {why}.")
