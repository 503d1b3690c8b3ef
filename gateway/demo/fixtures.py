"""The demonstration's fictitious people, read from ``fixtures/`` and entered by the same verbs as anybody's.

Promises: nobody here exists; every number is well formed (RPPS, FINESS, INS of the test authority); entering them twice
is entering them once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select

from gateway.errors import Fault
from gateway.model.meeting import Rcp
from gateway.rcp.access import SYSTEM, Role
from gateway.rcp.calendar import EveryWeeks, NthWeekday
from gateway.rcp.calendar import Recurrence as Series
from gateway.rcp.directory import (
    OrganisationFacts,
    ProfessionalFacts,
    practitioner_of,
    put_organisation,
    put_professional,
)
from gateway.rcp.registry import AeTitle, NetworkFacts, PartnerFacts, add_network, add_partner, network_named
from gateway.rcp.sessions import RcpFacts, create_rcp, join_rcp, plan_sessions
from gateway.rcp.step import Step, Steps

__all__ = ["directory", "enter", "fixtures_dir", "places", "story"]


def fixtures_dir() -> Path:
    """Return where ``fixtures/`` stands: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "fixtures", package.parent / "fixtures"):
        if folder.is_dir():
            return folder
    raise Fault("fixtures-absentes", "Les données de démonstration ne sont pas installées.")


def _read(name: str) -> Any:
    return json.loads((fixtures_dir() / name).read_text(encoding="utf-8"))


def directory() -> dict[str, ProfessionalFacts]:
    """Return the professionals by RPPS."""
    rows = [msgspec.convert(row, ProfessionalFacts) for row in _read("directory.json")["professionals"]]
    return {row.rpps: row for row in rows}


def places() -> dict[str, str]:
    """Return the names of the structures by FINESS."""
    return {row["finess"]: row["name"] for row in _read("directory.json")["organisations"]}


def story(name: str) -> Any:
    """Return one message of the story."""
    return _read(f"story/{name}.json")


def enter(steps: Steps, *, public_url: str, keys: Mapping[str, dict[str, Any]], pacs: Mapping[str, AeTitle]) -> None:
    """Enter networks, directory, RCPs with their sessions, and partners.

    Parameters
    ----------
    public_url
        Where this demonstration's portal is: the base of every link.
    keys
        Partner's name → its public keys (JWKS), made for this run.
    pacs
        AE title → where that PACS listens, for those that do.
    """

    def verb(step: Step) -> None:
        _enter_networks(step, public_url)
        _enter_directory(step)
        for entry in _read("rcps.json"):
            _enter_rcp(step, entry)
        for entry in _read("partners.json"):
            titles = tuple(pacs.get(title, AeTitle(title)) for title in entry.pop("ae_titles", ()))
            facts = msgspec.convert(entry, PartnerFacts)
            add_partner(step, msgspec.structs.replace(facts, jwks=keys.get(facts.name), ae_titles=titles))

    steps.run(SYSTEM, verb)


def _enter_networks(step: Step, public_url: str) -> None:
    for row in _read("networks.json"):
        add_network(step, msgspec.convert(row | {"base_url": public_url}, NetworkFacts))


def _enter_directory(step: Step) -> None:
    rows = _read("directory.json")
    source, as_of = rows["source"], date.fromisoformat(rows["as_of"])
    for row in rows["organisations"]:
        put_organisation(step, msgspec.convert(row, OrganisationFacts), source=source, as_of=as_of)
    for row in rows["professionals"]:
        put_professional(step, msgspec.convert(row, ProfessionalFacts), source=source, as_of=as_of)


def _enter_rcp(step: Step, entry: dict[str, Any]) -> None:
    facts = msgspec.convert(entry["rcp"], RcpFacts)
    if step.session.scalar(select(Rcp.id).where(Rcp.national_number == facts.national_number)) is not None:
        return
    rcp = create_rcp(step, network_named(step.session, entry["network"]), facts)
    for member in entry["members"]:
        who = practitioner_of(step.session, member["rpps"])
        if who is None:
            raise Fault("fixtures-invalides", "Un membre de RCP de la démonstration n’est pas dans l’annuaire.")
        for role in member["roles"]:
            join_rcp(step, rcp, who, Role(role))
    series, until = entry["series"], date.fromisoformat(entry["series"]["until"])
    starts, ends = time.fromisoformat(series["starts"]), time.fromisoformat(series["ends"])
    plan_sessions(step, rcp, _series(series), starts, ends, until=until)


def _series(said: Mapping[str, Any]) -> Series:
    first = date.fromisoformat(said["first"])
    if "nth" in said:
        return NthWeekday(first, weekday=said["weekday"], nth=said["nth"])
    return EveryWeeks(first, said["every_weeks"])
