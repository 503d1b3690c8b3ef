"""What others sent about the patient stands in his fiche and is saved from there; what waits for a person is not."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from gateway.documents import frcp, n1
from gateway.model.person import WorkItem
from gateway.model.received import ReceivedDocument
from gateway.portal import words
from gateway.portal.fiche import fiche
from gateway.rcp import reply
from gateway.rcp.report_content import Identifier
from tests import error_codes
from tests.report_samples import content
from tests.unit.portal.conftest import Site
from tests.unit.portal.conftest import words as text_of
from tests.world import build

NOW = datetime(2026, 3, 18, 9, 0, tzinfo=UTC)


def test_documents_of_the_dossier_are_shown_with_their_state(store):
    with store.session() as session:
        world = build(session)
        dossier = world.dossier()
        other = world.dossier()
        places = (
            ("Ancien", "remplace", dossier.id, dossier.record_id, "a" * 64),
            ("Récent", "attache", dossier.id, dossier.record_id, "b" * 64),
            ("<script>", "attache", None, dossier.record_id, "c" * 64),
            ("Repris", "retire", dossier.id, dossier.record_id, "d" * 64),
            ("Jamais venu", "retire", dossier.id, dossier.record_id, None),
            ("Douteux", "quarantaine", None, None, "e" * 64),
            ("Autrui", "attache", other.id, other.record_id, "f" * 64),
        )
        for rank, (title, state, dossier_id, record_id, sha256) in enumerate(places):
            row = ReceivedDocument(
                channel="mssante",
                unique_id=f"1.2.{rank}",
                format="n1",
                size_bytes=1,
                title=title,
                author="Anne MARTIN",
                state=state,
                dossier_id=dossier_id,
                record_id=record_id,
                sha256=sha256,
                received_at=NOW - timedelta(hours=rank),
            )
            session.add(row)
        session.flush()
        view, _ = fiche(session, world.caller(world.treating), NOW, dossier.id)
    lines = [(line.source, line.text.replace("\u00a0", " ")) for line in view.interop]
    assert lines[-4:] == [
        ("Anne MARTIN", "Document reçu : Ancien, remplacé par une version plus récente"),
        ("Anne MARTIN", "Document reçu : Récent"),
        ("Anne MARTIN", "Document reçu : <script>"),
        ("Anne MARTIN", "Document reçu : Repris, retiré par son auteur"),
    ]
    assert len(lines) == 5  # and the inscription


def test_every_reason_for_which_a_mail_waits_is_said_in_french():
    places = ("mssante/archive.py", "mssante/xdm_reader.py", "documents/safe_xml.py", "documents/cda_header.py")
    codes = {one.code for one in error_codes.refusals(*places)} | set(reply.REASONS)
    assert len(codes) > 30
    assert not codes - set(words.WORK_REASONS)


PDF = b"%PDF-1.4 un document enveloppe"
CDA = frcp.render(content())
N1 = n1.render(replace(content(), document_id=Identifier("1.2.3.9")), PDF)


def kept(site: Site, data: bytes, state: str = "attache", *, mine: bool = True, **more: object) -> str:
    """A document of a dossier of the world, or of its patient alone; return where it is."""
    world = site.world
    dossier = world.dossier()
    row = ReceivedDocument(
        **{
            "channel": "mssante",
            "unique_id": uuid.uuid4().hex,
            "format": "n1" if data is N1 else "structure",
            "size_bytes": len(data),
            "title": "Lettre de Dominique PAT-TROIS",
            "state": state,
            "dossier_id": dossier.id if mine else None,
            "record_id": dossier.record_id,
            "sha256": site.blobs.put(data).sha256,
            "received_at": NOW,
        }
        | more
    )
    world.session.add(row)
    world.session.commit()
    return f"/dossiers/{dossier.id}/documents/{row.id}"


@pytest.mark.parametrize(
    ("zone", "day"), [("Europe/Paris", "20260319"), ("America/Martinique", "20260318"), ("Pacific/Noumea", "20260319")]
)
def test_the_name_of_the_file_has_the_day_of_the_rcp(documents: Site, zone: str, day: str) -> None:
    """Half an hour past midnight in Paris is still the day before in Greenwich and in Fort-de-France."""
    documents.world.meeting.zone = zone
    where = kept(documents, N1, received_at=datetime(2026, 3, 18, 23, 30, tzinfo=UTC))
    got = documents.browser(documents.world.treating).client.get(f"{where}.pdf")
    assert got.headers["content-disposition"].endswith(f'-{day}.pdf"')


@pytest.fixture
def documents(site: Site, blobs) -> Site:
    site.blobs = blobs
    return site


def test_who_sees_the_dossier_saves_the_very_bytes_and_the_pdf_within(documents: Site) -> None:
    where, world = kept(documents, N1), documents.world
    reference = world.session.get_one(ReceivedDocument, uuid.UUID(where.rpartition("/")[2])).dossier_id
    page = documents.browser(world.treating).get(where.partition("/documents")[0])
    links = page.xpath("//section[@aria-labelledby='interop']//a")
    assert [(link.get("href"), link.text) for link in links] == [(f"{where}.pdf", "PDF"), (f"{where}.xml", "CDA")]
    for person in (world.treating, world.coordinator, world.requester):
        for ending, data, kind in (("xml", N1, "application/xml"), ("pdf", PDF, "application/pdf")):
            got = documents.browser(person).client.get(f"{where}.{ending}")
            assert (got.status_code, got.content, got.headers["content-type"]) == (200, data, kind)
            said = got.headers["content-disposition"]
            assert said.startswith('attachment; filename="document-recu-RCP-')
            assert said.endswith(f'-20260318.{ending}"')
            assert "PAT-TROIS" not in said
            assert got.headers["x-content-type-options"] == "nosniff"
    lines = [one for one in documents.audit() if one.get("object_type") == "ReceivedDocument"]
    assert [(one["actor_id"], one["dossier"], one["object_sha256"]) for one in lines] == [
        (person.idnps, str(reference), hashlib.sha256(N1).hexdigest())
        for person in (world.treating, world.coordinator, world.requester)
        for _ in range(2)
    ]


def test_a_document_of_the_patient_alone_is_shown_in_his_dossier(documents: Site) -> None:
    where = kept(documents, CDA, "remplace", mine=False)
    got = documents.browser(documents.world.requester).client.get(f"{where}.xml")
    assert got.content == CDA
    assert got.headers["content-disposition"].endswith('-20260318-remplace.xml"')


def test_a_readable_copy_is_saved_as_the_pdf_that_it_is(documents: Site) -> None:
    where = kept(documents, PDF, format="pdf")
    mine = documents.browser(documents.world.requester)
    page = mine.get(where.partition("/documents")[0])
    assert [link.get("href") for link in page.xpath("//section[@aria-labelledby='interop']//a")] == [f"{where}.pdf"]
    assert mine.client.get(f"{where}.pdf").content == PDF
    assert mine.client.get(f"{where}.xml").status_code == 404


@pytest.mark.parametrize("state", ["quarantaine", "retire"])
def test_what_waits_or_was_withdrawn_is_not_there(documents: Site, state: str) -> None:
    where = kept(documents, CDA, state)
    assert documents.browser(documents.world.coordinator).client.get(f"{where}.xml").status_code == 404


def test_nobody_else_and_nothing_else(documents: Site) -> None:
    where, elsewhere, world = kept(documents, CDA), kept(documents, CDA), documents.world
    document = where.rpartition("/")[2]
    assert documents.browser(world.stranger).client.get(f"{where}.xml").status_code == 404
    assert documents.browser().client.get(f"{where}.xml").status_code == 303
    mine = documents.browser(world.coordinator).client
    for path in (
        f"{elsewhere.rpartition('/')[0]}/{document}.xml",  # a document of another dossier
        f"{where}.pdf",  # it envelopes none
        f"{where}.html",
        where,
        f"{where.rpartition('/')[0]}/{uuid.uuid4()}.xml",
        f"{where.rpartition('/')[0]}/..xml",
    ):
        assert mine.get(path).status_code == 404
    assert mine.get(f"{where}.xml").status_code == 200


def test_what_a_software_brought_and_waits_is_a_question_for_the_organisers(documents: Site) -> None:
    world = documents.world
    item = WorkItem(
        key="document|1",
        kind="message",
        reason="traits-differents",
        partner_id=world.partner.id,
        network_id=world.network.id,
    )
    world.session.add(item)
    world.session.commit()
    mine = documents.browser(world.coordinator)
    for address, shown in (("/erreurs", 1), ("/erreurs?genre=recus", 1), ("/erreurs?genre=notifications", 0)):
        page = text_of(mine.get(address))
        assert page.count("Les traits d’identité du document reçu contredisent ceux du patient.") == shown
        assert (world.partner.name in page) is bool(shown)
    where = f"/erreurs/{item.id}"
    assert "Document reçu" in text_of(mine.get(where))
    mine.post(f"{where}/clore", motif="Identité corrigée à la source.")
    assert "Situation traitée." in text_of(mine.get(where))
    assert documents.browser(world.treating).client.get(where).status_code == 404
