"""The demonstration's people: fictitious, well formed, entered by the ordinary verbs."""

from __future__ import annotations

import json
from datetime import date, datetime

from sqlalchemy import func, select

from gateway.demo import fixtures
from gateway.demo.ct_phantom import DOMINIQUE
from gateway.fhir.translate.inscription import form_facts, inscription_facts, is_inscription, tumour_facts
from gateway.fhir.translate.patient import patient_facts
from gateway.identifiers import Finess, IdNatPs, Ins, InsAuthority, MssanteAddress, Rpps
from gateway.model.meeting import Rcp, RcpMember, RcpSession
from gateway.model.network import Network
from gateway.model.partner import Partner
from gateway.rcp.facts import IdentityStatus, Participation

KEYS = {"CHU X": {"keys": [{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "kid": "k"}]}}


def _entries(name):
    return {entry["resource"]["resourceType"]: entry["resource"] for entry in fixtures.story(name)["entry"]}


def test_they_are_entered_once_however_often(steps, store):
    for _ in range(2):
        fixtures.enter(steps, public_url="http://127.0.0.1:8080", keys=KEYS, pacs={})
    with store.session() as session:
        networks = session.scalars(select(Network).order_by(Network.code)).all()
        assert [network.code for network in networks] == ["dcc-a", "filiere-rares"]
        assert {network.base_url for network in networks} == {"http://127.0.0.1:8080"}
        rcps = {rcp.national_number: rcp for rcp in session.scalars(select(Rcp)).unique()}
        assert {rcp.level for rcp in rcps.values()} == {"regionale", "nationale"}
        regional = rcps["RCP-NAT-0042"]
        days = session.scalars(select(RcpSession.on).where(RcpSession.rcp_id == regional.id)).all()
        assert {date(2026, 3, 19), date(2026, 3, 26)} <= set(days)
        # Every Thursday but Ascension.
        assert {day.weekday() for day in days} == {3}
        assert date(2026, 5, 14) not in days
        assert session.scalar(select(func.count()).select_from(RcpMember)) == 7
        [partner] = session.scalars(select(Partner)).unique().all()
        assert {(one.kind, one.value) for one in partner.credentials} == {("fhir", "chu-x"), ("aet", "CHUX_PACS")}


def test_every_number_is_well_formed():
    rows = json.loads((fixtures.fixtures_dir() / "directory.json").read_text(encoding="utf-8"))
    for place in rows["organisations"]:
        Finess.parse(place["finess"])
    for who in rows["professionals"]:
        Rpps.parse(who["rpps"])
    for row in rows["organisations"] + rows["professionals"]:
        for box in row.get("mailboxes", ()):
            assert MssanteAddress.parse(box["address"]).domain == "exemple.mssante.fr"


def test_patients_are_of_the_test_authority_and_qualified():
    for name in ("inscription", "by-hand"):
        said = patient_facts(_entries(name)["Patient"])
        ins = Ins.from_wire(said.ins.value, said.ins.system)
        assert ins.authority is InsAuthority.TEST
        assert ins.qualifiable
        assert said.status is IdentityStatus.QUALIFIEE
        assert IdNatPs.from_wire(said.treating_physician.identifier.value).rpps == Rpps.parse("10100000040")


def test_the_inscription_says_what_the_decisions_ask():
    # DECISIONS 17: physician by RPPS, session by national number and start, a completed form.
    sent = _entries("inscription")
    assert is_inscription(sent["ServiceRequest"])
    said = inscription_facts(
        sent["ServiceRequest"], tumour=sent["Condition"], form=sent["QuestionnaireResponse"], resolve=lambda _: None
    )
    assert said.session.rcp_number == "RCP-NAT-0042"
    assert said.session.start == datetime.fromisoformat("2026-03-19T14:00:00+01:00")
    assert said.requester.identifier.value == "810100000024"
    assert said.participation is Participation.PRESENT
    assert said.question == "Chimiothérapie néoadjuvante ou chirurgie première ?"
    assert form_facts(sent["QuestionnaireResponse"]).completed
    assert tumour_facts(sent["Condition"]).topography.code == "C50.4"


def test_the_two_stories_share_no_identifier():
    sent = [json.dumps(fixtures.story(name)) for name in ("inscription", "by-hand")]
    for one, other in (sent, sent[::-1]):
        for identifier in _identifiers(json.loads(one)):
            assert f'"{identifier}"' not in other


def _identifiers(tree):
    for entry in tree["entry"]:
        yield entry["fullUrl"]
        given = entry["resource"].get("identifier", [])
        yield from (one["value"] for one in (given if isinstance(given, list) else [given]))


def test_the_scanner_is_of_the_same_patient():
    patient = _entries("inscription")["Patient"]
    known = {(one["system"], one["value"]) for one in patient["identifier"]}
    assert (DOMINIQUE.issuer, DOMINIQUE.patient_id) in known
    assert DOMINIQUE.birth_date.isoformat() == patient["birthDate"]
