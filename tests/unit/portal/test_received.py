"""What others sent about the patient stands in his fiche, and what waits for a person does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.model.received import ReceivedDocument
from gateway.portal import words
from gateway.portal.fiche import fiche
from gateway.rcp import reply
from tests import error_codes
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
