"""Each kind of parameter against a real PostgreSQL; the answers are written by hand from R4's page on search."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, true

from gateway.errors import InvalidContent
from gateway.fhir import document, keeping
from gateway.fhir.search_columns import parameters
from gateway.fhir.search_conditions import condition, references, refers, sort_key
from gateway.model.representation import TABLES
from gateway.model.store import Store
from gateway.settings import Limits
from tests.world import PARIS

Ask = Callable[..., set[str]]


@pytest.fixture
def keep(store: Store) -> Iterator[Callable[[dict], None]]:
    with store.session() as session:

        def keep(tree: dict) -> None:
            read = document.parse(json.dumps(tree).encode())
            keeping.keep(session, read["resourceType"], read["id"], read, keeping.Owner(public=True))
            session.commit()

        yield keep


@pytest.fixture
def ask(store: Store) -> Ask:
    def ask(kind: str, *pairs: str, **more: object) -> set[str]:
        table = TABLES[kind]
        statement = select(table.c.id).where(table.c.current, ~table.c.deleted)
        for pair in pairs:
            name, _, value = pair.partition("=")
            found = condition(kind, name, value, more.get("visible") or (lambda _kind, _table: true()), **_rest(more))
            assert found is not None, name
            statement = statement.where(found)
        with store.session() as session:
            return set(session.scalars(statement))

    return ask


def _rest(more: dict) -> dict:
    return {name: value for name, value in more.items() if name != "visible"}


def observation(identity: str, **more: object) -> dict:
    return {"resourceType": "Observation", "id": identity, "status": "final", "code": {"text": identity}, **more}


def patient(identity: str, **more: object) -> dict:
    return {"resourceType": "Patient", "id": identity, **more}


# string


@pytest.fixture
def names(keep) -> None:
    keep(patient("a", name=[{"family": "LEFÈVRE-d’Ormesson", "given": ["Ève", "Marie"]}]))
    keep(patient("b", name=[{"family": "Le Fèvre", "given": ["Jean-Pierre"], "text": "Docteur Jean-Pierre Le Fèvre"}]))
    keep(patient("c", name=[{"family": "lefevre"}, {"family": "Durand", "use": "maiden"}]))
    keep(patient("d", gender="male"))
    keep(patient("e", name=[{"family": "O'Brien, \\ $x|y 'q'"}], address=[{"line": ["12 rue X"], "city": "LYON"}]))


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("family=lefevre", "ac"),
        ("family=LEFÈVRE", "ac"),
        ("family=lefevre d'o", "a"),
        ("family=fevre", ""),
        ("family=le fevre", "b"),
        ("family=durand", "c"),
        ("family=lefevre,dur,o", "ace"),
        ("given=jean pierre", "b"),
        ("given=marie", "a"),
        ("name=docteur", "b"),
        ("name=eve", "a"),
        ("family:exact=lefevre", "c"),
        ("family:exact=LEFÈVRE-d’Ormesson", "a"),
        ("family:exact=Lefevre", ""),
        ("family:contains=fevre", "abc"),
        ("family:contains=ORM", "a"),
        ("family:contains=e f", "b"),
        ("family:contains=an", "c"),
        ("family:contains=jea", ""),
        ("name:contains=jea", "b"),
        ("family:missing=true", "d"),
        ("family:missing=false", "abce"),
        ("family=o'brien\\, \\\\ \\$x\\|y 'q'", "e"),
        ("family:exact=O'Brien\\, \\\\ \\$x\\|y 'q'", "e"),
        ("address=lyon", "e"),
        ("address=12 rue", "e"),
        ("address-city=ly", "e"),
        ("address-city:contains=ue x", ""),
    ],
)
def test_strings(names, ask: Ask, pair: str, found: str) -> None:
    assert ask("Patient", pair) == set(found)


# token

ACTIVE = {"system": "http://example.org/s", "code": "x"}


@pytest.fixture
def tokens(keep) -> None:
    mr = {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}],
        "text": "Numéro de dossier",
    }
    keep(patient("a", identifier=[{"system": "urn:a", "value": "1", "type": mr}], gender="male", active=True))
    keep(patient("b", identifier=[{"system": "urn:b", "value": "1"}], gender="female", deceasedDateTime="2020"))
    keep(patient("c", identifier=[{"value": "1"}, {"system": "urn:a", "value": "2"}], deceasedBoolean=False))
    keep(patient("d", identifier=[{"system": "urn:p|x", "value": "a,b|c"}], active=False, deceasedBoolean=True))
    telecom = [{"system": "email", "value": "Jean@Example.fr"}, {"system": "phone", "value": "+33 1 02"}]
    keep(patient("e", telecom=telecom, communication=[{"language": {"text": "Le français parlé"}}]))


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("identifier=1", "abc"),
        ("identifier=urn:a|1", "a"),
        ("identifier=|1", "c"),
        ("identifier=urn:a|", "ac"),
        ("identifier=urn:a|1,urn:b|1", "ab"),
        ("identifier=urn:p\\|x|a\\,b\\|c", "d"),
        ("identifier=a\\,b\\|c", "d"),
        ("identifier:not=1", "de"),
        ("identifier:not=urn:a|1,urn:a|2", "bde"),
        ("identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|1", "a"),
        ("identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|2", ""),
        ("identifier:text=numero de", "a"),
        ("identifier:missing=true", "e"),
        ("gender=male", "a"),
        ("gender=http://hl7.org/fhir/administrative-gender|male", "a"),
        ("gender=http://example.org|male", ""),
        ("gender:not=male", "bcde"),
        ("gender:missing=true", "cde"),
        ("active=true", "a"),
        ("active=false", "d"),
        ("active:missing=false", "ad"),
        # R4: Patient.deceased.exists() and Patient.deceased != false
        ("deceased=true", "bd"),
        ("deceased=false", "ace"),
        ("email=jean@example.fr", "e"),
        ("email=+33 1 02", ""),
        ("telecom=JEAN@EXAMPLE.FR", "e"),
        ("phone=+33 1 02", "e"),
        ("language:text=le francais", "e"),
        ("language:text=parle", ""),
        ("_id=a,b,zz", "ab"),
    ],
)
def test_tokens(tokens, ask: Ask, pair: str, found: str) -> None:
    assert ask("Patient", pair) == set(found)


# reference

BASE = "https://gw.example/fhir"


@pytest.fixture
def referring(keep) -> None:
    keep(patient("p1", name=[{"family": "Un"}], identifier=[{"system": "urn:a", "value": "1"}]))
    keep(patient("p2", name=[{"family": "Deux"}], link=[{"type": "seealso", "other": {"reference": "Patient/p1"}}]))
    keep(observation("a", subject={"reference": "Patient/p1"}, performer=[{"reference": "Practitioner/x"}]))
    keep(observation("b", subject={"reference": "Patient/p2/_history/3"}))
    keep(observation("c", subject={"reference": "Group/p1"}))
    keep(observation("d", subject={"reference": "http://other.example/fhir/Patient/p1"}))
    keep(observation("e", subject={"identifier": {"system": "urn:a", "value": "1"}, "type": "Patient"}))
    keep(observation("f", valueInteger=3))


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("subject=Patient/p1", "a"),
        ("subject=p1", "ac"),
        ("subject:Patient=p1", "a"),
        ("subject:Group=p1", "c"),
        ("subject:Patient=Group/p1", ""),
        ("patient=p1", "a"),
        ("patient=Patient/p2", "b"),
        ("patient=Patient/p2/_history/3", "b"),
        ("patient=Patient/p2/_history/4", ""),
        ("subject=https://gw.example/fhir/Patient/p1", "a"),
        ("subject=http://other.example/fhir/Patient/p1", "d"),
        ("subject=http://third.example/fhir/Patient/p1", ""),
        ("subject:identifier=urn:a|1", "e"),
        ("subject:identifier=1", "e"),
        ("subject:missing=true", "f"),
        ("patient:missing=true", "cf"),
        ("subject.identifier=urn:a|1", "ae"),
        ("subject:Patient.name=un", "a"),
        ("patient.family=deux", "b"),
        ("patient.link.family=un", "b"),
        ("patient:Patient.link:Patient.identifier=urn:a|1", "b"),
        ("patient._has:Patient:link:family=deux", "a"),
        ("patient._has:Observation:patient:performer=Practitioner/x", "a"),
    ],
)
def test_references(referring, ask: Ask, pair: str, found: str) -> None:
    assert ask("Observation", pair, base=BASE) == set(found)


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("_has:Observation:patient:status=final", {"p1", "p2"}),
        ("_has:Observation:subject:performer=Practitioner/x", {"p1"}),
        ("_has:Observation:patient:_id=b", {"p2"}),
        ("_has:Patient:link:_has:Observation:patient:_id=b", {"p1"}),
        ("_has:Observation:patient:patient.link.family=un", {"p2"}),
        ("link.family=un", {"p2"}),
    ],
)
def test_has(referring, ask: Ask, pair: str, found: set[str]) -> None:
    assert ask("Patient", pair) == found


def test_a_chain_sees_only_what_the_caller_sees(referring, ask: Ask) -> None:
    def blind(kind: str, table) -> object:
        return table.c.id != "p1" if kind == "Patient" else true()

    assert ask("Observation", "patient.family=un", visible=blind) == set()
    assert ask("Observation", "patient.link.family=un", visible=blind) == set()
    assert ask("Observation", "patient.family=deux", visible=blind) == {"b"}
    assert ask("Patient", "_has:Observation:patient:_id=a", visible=lambda _kind, table: table.c.id != "a") == set()


def test_included_references(referring, store: Store) -> None:
    subject = parameters("Observation")["subject"]
    table = TABLES["Observation"]
    with store.session() as session:
        held = dict(session.execute(select(table.c.id, references("Observation", subject))).all())
        found = set(
            session.scalars(select(table.c.id).where(refers("Observation", subject, ["Patient/p1", "Patient/p2"])))
        )
    assert held["a"] == ["Patient/p1"]
    assert set(held["b"]) == {"Patient/p2", "Patient/p2/_history/3"}
    assert held["f"] is None
    assert found == {"a", "b"}


# date


@pytest.fixture
def dates(keep) -> None:
    keep(observation("day", effectiveDateTime="2026-03-19"))
    keep(observation("month", effectiveDateTime="2026-03"))
    keep(observation("noon", effectiveDateTime="2026-03-19T12:00:00+01:00"))
    keep(observation("period", effectivePeriod={"start": "2026-03-18", "end": "2026-03-20"}))
    keep(observation("open", effectivePeriod={"start": "2026-03-10"}))
    keep(observation("twice", effectiveTiming={"event": ["2026-03-01", "2026-03-31"]}))
    keep(observation("none"))


ALL = {"day", "month", "noon", "period", "open", "twice"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2026-03-19", {"day", "noon"}),
        ("eq2026-03", {"day", "month", "noon", "period", "twice"}),
        ("2026-03-19T12:00+01:00", {"noon"}),
        ("2026-03-19T12:00", {"noon"}),
        ("2026-03-19T11:00Z", {"noon"}),
        # The event of the 1st and that of the 31st: nothing happens between them.
        ("ne2026-03-19", ALL - {"day", "noon"}),
        ("ne2026-03", {"open"}),
        ("gt2026-03-19", {"month", "period", "open", "twice"}),
        ("lt2026-03-19", {"month", "period", "open", "twice"}),
        ("ge2026-03-19", ALL),
        ("le2026-03-19", ALL),
        ("ge2026-03-21", {"month", "open", "twice"}),
        ("sa2026-03-18", {"day", "noon", "twice"}),
        ("sa2026-03-20", {"twice"}),
        ("eb2026-03-20", {"day", "noon", "twice"}),
        ("eb2026-03-02", {"twice"}),
        ("ap2026-03-19", {"month", "day", "noon", "period", "open"}),
        ("2026-03-01,2026-03-19", {"twice", "day", "noon"}),
    ],
)
def test_dates(dates, ask: Ask, monkeypatch, value: str, found: set[str]) -> None:
    # A tenth of the time between the date and now is two days.
    monkeypatch.setattr("gateway.fhir.search_ranges.utcnow", lambda: datetime(2026, 4, 8, 22, tzinfo=UTC))
    assert ask("Observation", f"date={value}") == found


def test_dates_and_a_resource_that_says_none(dates, ask: Ask) -> None:
    assert ask("Observation", "date:missing=true") == {"none"}
    assert ask("Observation", "date=ge2026-03-02", "date=le2026-03-30") >= {"day", "period"}


def test_last_updated(dates, ask: Ask) -> None:
    now = datetime.now(UTC)
    everything = ALL | {"none"}
    for prefix, moved, found in [
        ("gt", -1, everything), ("ge", -1, everything), ("sa", -1, everything), ("lt", 1, everything),
        ("le", 1, everything), ("eb", 1, everything), ("gt", 1, set()), ("lt", -1, set()), ("ne", 1, everything),
        ("eq", 1, set()), ("ap", -10000, set()),
    ]:  # fmt: skip
        text = (now + timedelta(hours=moved)).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert ask("Observation", f"_lastUpdated={prefix}{text}") == found, prefix
    # A year is a year of Paris, and may end while this runs.
    years = {f"{moment.astimezone(PARIS):%Y}" for moment in (now - timedelta(minutes=10), now)}
    assert set().union(*(ask("Observation", f"_lastUpdated={year}") for year in years)) == everything


# number and quantity


@pytest.fixture
def quantities(keep) -> None:
    mg = {"system": "http://unitsofmeasure.org", "code": "mg", "unit": "mg"}
    keep(observation("54", valueQuantity={"value": 5.4, **mg}))
    keep(observation("5435", valueQuantity={"value": 5.435, **mg}))
    keep(observation("545", valueQuantity={"value": 5.45, **mg}))
    keep(observation("g", valueQuantity={"value": 5.4, "unit": "gramme"}))
    keep(observation("below", valueQuantity={"value": 5, "comparator": "<", **mg}))
    keep(observation("from", valueQuantity={"value": 100, "comparator": ">=", **mg}))
    keep(observation("far", valueQuantity={"value": 100, **mg}))
    keep(observation("minus", valueQuantity={"value": -3, **mg}))
    parts = [
        {"code": {"text": "a"}, "valueQuantity": {"value": 1, **mg}},
        {"code": {"text": "b"}, "valueQuantity": {"value": 9}},
    ]
    keep(observation("parts", component=parts))


MG = "http://unitsofmeasure.org|mg"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        # 5.4 means [5.35, 5.45): « 5.4(+/-0.05) » in R4's words.
        ("5.4", {"54", "5435", "g"}),
        (f"5.4|{MG}", {"54", "5435"}),
        ("5.4||mg", {"54", "5435"}),
        ("5.4||gramme", {"g"}),
        ("5.4|http://unitsofmeasure.org|", {"54", "5435"}),
        ("5.40", {"54", "g"}),
        ("5.4e0", {"54", "5435", "g"}),
        ("5", {"54", "5435", "545", "g"}),
        ("ne5.4", {"545", "below", "from", "far", "minus"}),
        ("gt5.4", {"5435", "545", "from", "far"}),
        (f"gt5.4|{MG}", {"5435", "545", "from", "far"}),
        ("ge5.4", {"54", "5435", "545", "g", "from", "far"}),
        ("lt5.4", {"below", "minus"}),
        ("le5.4", {"54", "g", "below", "minus"}),
        ("ge5.45||mg", {"545", "from", "far"}),
        ("sa5.4", {"5435", "545", "from", "far"}),
        ("eb5", {"minus", "below"}),
        ("eb0", {"minus"}),
        ("gt100", {"from"}),
        ("ap100", {"far", "from"}),
        ("ap95", {"far", "from"}),
        ("ap90", set()),
        # R4's table: 1e2 is [95, 105), 100 is [99.5, 100.5)
        ("1e2", {"far"}),
        ("100", {"far"}),
        ("96", set()),
        ("9.6e1", set()),
        ("-3", {"minus"}),
        ("ap-3.2", {"minus", "below"}),
        ("5.4,-3", {"54", "5435", "g", "minus"}),
    ],
)
def test_quantities(quantities, ask: Ask, value: str, found: set[str]) -> None:
    assert ask("Observation", f"value-quantity={value}") == found


def test_quantities_of_several_components_are_compared_each(quantities, ask: Ask) -> None:
    assert ask("Observation", "component-value-quantity=5") == set()
    assert ask("Observation", "component-value-quantity=9") == {"parts"}
    assert ask("Observation", "component-value-quantity=9||mg") == set()
    assert ask("Observation", "component-value-quantity=gt5||mg") == set()
    assert ask("Observation", "component-value-quantity=gt5") == {"parts"}
    assert ask("Observation", "combo-value-quantity=lt5||mg") == {"parts", "below", "minus"}


def test_numbers(keep, ask: Ask) -> None:
    for priority in (0, 1, 5, 100):
        keep({"resourceType": "Appointment", "id": str(priority), "status": "booked", "priority": priority})
    keep({"resourceType": "Appointment", "id": "none", "status": "booked"})
    assert ask("Appointment", "priority=5") == {"5"}
    assert ask("Appointment", "priority=1e2") == {"100"}
    assert ask("Appointment", "priority=lt5") == {"0", "1"}
    assert ask("Appointment", "priority=ge5") == {"5", "100"}
    assert ask("Appointment", "priority=ne5") == {"0", "1", "100"}
    assert ask("Appointment", "priority:missing=true") == {"none"}


# composite


def _component(code: str, **value: object) -> dict:
    return {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, **value}


@pytest.fixture
def composites(keep) -> None:
    mm = {"system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
    pressure = [
        _component("8480-6", valueQuantity={"value": 107, **mm}),
        _component("8462-4", valueQuantity={"value": 60, **mm}),
    ]
    keep(observation("bp", component=pressure))
    keep({**observation("root", valueQuantity={"value": 107, **mm}), "code": _component("8480-6")["code"]})
    grade = {"coding": [{"system": "urn:g", "code": "III"}]}
    keep({**observation("concept", valueCodeableConcept=grade), "code": _component("g")["code"]})
    keep({**observation("text", valueString="Évolution favorable"), "code": _component("t")["code"]})
    keep({**observation("date", valueDateTime="2026-03-19"), "code": _component("d")["code"]})


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("component-code-value-quantity=8480-6$107", {"bp"}),
        ("component-code-value-quantity=http://loinc.org|8480-6$gt100||mm[Hg]", {"bp"}),
        # Both stand in the resource, but not in the same component.
        ("component-code-value-quantity=8480-6$60", set()),
        ("component-code-value-quantity=8462-4$gt100", set()),
        ("component-code-value-quantity=8480-6$60,8462-4$lt61", {"bp"}),
        ("combo-code-value-quantity=8480-6$107", {"bp", "root"}),
        ("code-value-quantity=8480-6$107", {"root"}),
        ("code-value-quantity=8480-6$60", set()),
        ("code-value-concept=g$urn:g|III", {"concept"}),
        ("code-value-concept=g$III", {"concept"}),
        ("code-value-concept=t$III", set()),
        ("code-value-string=t$evolution", {"text"}),
        ("code-value-date=d$ge2026-03", {"date"}),
        ("combo-code-value-concept=g$III", {"concept"}),
    ],
)
def test_composites(composites, ask: Ask, pair: str, found: set[str]) -> None:
    assert ask("Observation", pair) == found


def test_composites_of_other_types(keep, ask: Ask) -> None:
    keep({
        "resourceType": "Group", "id": "g", "type": "person", "actual": True,
        "characteristic": [
            {"code": {"coding": [{"code": "sex"}]}, "valueCodeableConcept": {"coding": [{"code": "f"}]}},
            {"code": {"coding": [{"code": "adult"}]}, "valueBoolean": True},
        ],
    })  # fmt: skip
    assert ask("Group", "characteristic-value=sex$f") == {"g"}
    assert ask("Group", "characteristic-value=adult$true") == {"g"}
    assert ask("Group", "characteristic-value=sex$true") == set()
    document = {"resourceType": "DocumentReference", "id": "d", "status": "current", "content": [{"attachment": {}}]}
    relations = [
        {"code": "replaces", "target": {"reference": "DocumentReference/old"}},
        {"code": "appends", "target": {"reference": "DocumentReference/other"}},
    ]
    keep({**document, "relatesTo": relations})
    assert ask("DocumentReference", "relationship=DocumentReference/old$replaces") == {"d"}
    assert ask("DocumentReference", "relationship=old$replaces") == {"d"}
    assert ask("DocumentReference", "relationship=DocumentReference/old$appends") == set()


# what stands in every resource


def test_parameters_of_every_type(keep, ask: Ask) -> None:
    meta = {
        "tag": [{"system": "urn:t", "code": "x"}],
        "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}],
        "profile": ["https://example.org/p|1.0"],
        "source": "https://ehr.example/fhir",
    }
    keep(patient("a", meta=meta))
    keep(patient("b"))
    assert ask("Patient", "_tag=urn:t|x") == {"a"}
    assert ask("Patient", "_tag:not=x") == {"b"}
    assert ask("Patient", "_security=R") == {"a"}
    assert ask("Patient", "_profile=https://example.org/p") == {"a"}
    assert ask("Patient", "_profile=https://example.org/p|1.0") == {"a"}
    assert ask("Patient", "_source=https://ehr.example/fhir") == {"a"}
    assert ask("Patient", "_profile:missing=true") == {"b"}


def test_french_parameters(keep, ask: Ask) -> None:
    archived = "https://interop.esante.gouv.fr/ig/fhir/pdsm/StructureDefinition/pdsm-ext-is-archived"
    keep({
        "resourceType": "DocumentReference", "id": "d", "status": "current",
        "extension": [{"url": archived, "valueBoolean": True}],
        "content": [{"attachment": {"creation": "2026-03-20T10:00:00+01:00"}}],
        "context": {"period": {"start": "2026-03-19"}},
    })  # fmt: skip
    assert ask("DocumentReference", "isArchived=true") == {"d"}
    assert ask("DocumentReference", "isArchived=false") == set()
    assert ask("DocumentReference", "creation=2026-03-20") == {"d"}
    assert ask("DocumentReference", "period-start=ge2026-03-19") == {"d"}
    assert ask("DocumentReference", "period-end:missing=true") == {"d"}
    kind = {
        "system": "https://mos.esante.gouv.fr/NOS/TRE_R256-TypeMessagerie/FHIR/TRE-R256-TypeMessagerie",
        "code": "MSSANTE",
    }
    mark = {
        "url": "https://hl7.fr/ig/fhir/core/StructureDefinition/fr-core-contact-point-email-type",
        "valueCoding": kind,
    }
    telecom = [
        {"system": "email", "value": "alice@demo.mssante.fr", "extension": [mark]},
        {"system": "email", "value": "a@b.fr"},
    ]
    keep({"resourceType": "Practitioner", "id": "p", "telecom": telecom})
    assert ask("Practitioner", "mailbox-mss=alice@demo.mssante.fr") == {"p"}
    assert ask("Practitioner", "mailbox-mss:contains=mssante") == {"p"}
    assert ask("Practitioner", "mailbox-mss=a@b.fr") == set()


# refusals


@pytest.mark.parametrize(
    ("kind", "pair", "code"),
    [
        ("Patient", "gender:exact=male", "parametre-modificateur"),
        ("Patient", "family:not=x", "parametre-modificateur"),
        ("Patient", "birthdate:exact=2020", "parametre-modificateur"),
        ("Patient", "_id:exact=2020", "parametre-modificateur"),
        ("Patient", "general-practitioner:Patient=1", "parametre-modificateur"),
        ("Patient", "gender.name=1", "parametre-modificateur"),
        ("Patient", "birthdate=hier", "parametre-valeur"),
        ("Patient", "birthdate=ge", "parametre-valeur"),
        ("Patient", "birthdate=xx2020", "parametre-valeur"),
        ("Patient", "gender:missing=peut-être", "parametre-valeur"),
        ("Patient", "identifier=|", "parametre-valeur"),
        ("Patient", "identifier:of-type=a|b", "parametre-valeur"),
        ("Patient", "family=-", "parametre-valeur"),
        ("Patient", "_lastUpdated=demain", "parametre-valeur"),
        ("Patient", "family=a\x00", "parametre-valeur"),
        ("Patient", "_has:Observation:status:code=1", "parametre-valeur"),
        ("Patient", "_has:Nothing:patient:code=1", "parametre-valeur"),
        ("Patient", "_has:Observation:patient:nothing=1", "parametre-valeur"),
        ("Patient", "general-practitioner.nothing=1", "parametre-inconnu"),
        ("Observation", "value-quantity=1|mg", "parametre-valeur"),
        ("Observation", "value-quantity=1e99999", "parametre-valeur"),
        ("Observation", "value-quantity=ge", "parametre-valeur"),
        ("Observation", "code-value-quantity=a", "parametre-valeur"),
        ("Observation", "code-value-quantity=a$1$2", "parametre-valeur"),
        ("Observation", "code-value-quantity:missing=true", "parametre-modificateur"),
        ("Observation", "based-on.based-on.based-on.based-on.status=1", "chaine-trop-longue"),
        ("Observation", "focus.focus.focus.status=1", "chaine-trop-large"),
        ("Patient", "identifier=" + ",".join("abcdefghijk"), "trop-de-parametres"),
    ],
)
def test_refusals(ask: Ask, kind: str, pair: str, code: str) -> None:
    with pytest.raises(InvalidContent) as caught:
        ask(kind, pair, limits=Limits(search_values=10, search_chain=3))
    assert caught.value.code == code


def test_an_unknown_parameter_is_none() -> None:
    assert condition("Patient", "couleur", "bleu", lambda _kind, _table: true()) is None


# sorting


def test_keys_to_sort_by(keep, store: Store) -> None:
    keep(
        patient(
            "1",
            name=[{"family": "Zola"}, {"family": "Éluard"}],
            birthDate="1980",
            identifier=[{"system": "urn:z", "value": "b"}],
        )
    )
    keep(patient("2", name=[{"family": "durand"}], birthDate="1980-06", identifier=[{"value": "a"}]))
    keep(
        patient(
            "3", name=[{"family": "Martin"}], birthDate="1979-12-31", identifier=[{"system": "urn:a", "value": "c"}]
        )
    )
    keep(patient("4"))
    table = TABLES["Patient"]

    def order(code: str, *, descending: bool = False) -> str:
        key = sort_key("Patient", code, descending=descending)
        assert key is not None
        ordered = key.desc().nulls_last() if descending else key.asc().nulls_last()
        with store.session() as session:
            return "".join(session.scalars(select(table.c.id).order_by(ordered, table.c.id)))

    assert order("family") == "2134"  # durand, eluard, martin
    assert order("family", descending=True) == "1324"  # zola, martin, durand
    assert order("birthdate") == "3124"
    assert order("birthdate", descending=True) == "1234"
    assert order("identifier") == "2134"
    assert order("_id", descending=True) == "4321"
    assert order("_lastUpdated") == "1234"
    assert sort_key("Patient", "couleur") is None
    assert sort_key("Observation", "code-value-quantity") is None
