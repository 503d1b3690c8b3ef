"""The register of a session: the words of the national sheet, each mail's fate, who reads it, and its file."""

from __future__ import annotations

import csv
import io
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from lxml import html
from sqlalchemy import event, update

from gateway.model.dossier import Contribution, Correspondent, Dossier
from gateway.model.meeting import RcpSession
from gateway.model.message import Message, NotificationEntry, Receipt
from gateway.portal import register, words
from gateway.portal.register import LABELS, label
from gateway.rcp import access
from gateway.rcp import register as facts
from gateway.rcp.notification import plan_due
from tests.unit.portal.conftest import LETTERS, Site
from tests.unit.portal.conftest import words as read
from tests.world import World, build

#: 09/05/2023 at 08:00 on the wall of Paris, as the sheet's examples have it.
AT = datetime(2023, 5, 9, 8, 0, tzinfo=UTC)
SHEET = {
    "PREVUE": "Notification avant RCP prévue le 09/05/2023",
    "ENVOYEE": "Notification envoyée le 09/05/2023 à 08h00",
    "REMISE": "Remise le 09/05/2023 à 08h00",
    "LUE": "Lue le 09/05/2023 à 08h00",
    "CONNECTE": "Fiche consultée le 09/05/2023 à 08h00",
    "CONTRIBUE": "Contribution du 09/05/2023",
    "NON_RCP": "Dispositif non activé pour cette RCP",
    "NON_MT": "Médecin traitant non renseigné",
    "NON_RPPS": "Médecin traitant sans numéro RPPS",
    "NON_MSS": "Adresse MSSanté inconnue",
    "NON_DELAI": "Dossier inscrit après la limite du 09/05/2023 à 08h00",
    "NON_ADRESSE": "Aucune adresse cochée (personnelle ou secrétariat)",
    "NON_OPPOSITION": "Opposition du patient enregistrée",
    "NON_DEMANDEUR": "Médecin traitant et demandeur sont la même personne",
    "NON_SEANCE": "Séance annulée, reportée ou fictive",
    "NON_REFUS": "Le médecin a demandé à ne plus être informé",
    "ECHEC": "Échec de remise : boîte pleine (5.2.2) – à traiter",
}
"""Features 4.3, code by code, each value filled."""


def test_the_labels_are_those_of_the_sheet() -> None:
    assert {code: label(code, AT, reason="boîte pleine (5.2.2)") for code in SHEET} == SHEET
    assert SHEET.keys() <= LABELS.keys()


def test_a_label_without_its_instant_has_no_hole() -> None:
    assert label("NON_DELAI") == "Dossier inscrit après la limite"
    assert "{" not in "".join(map(label, LABELS))


def entry(world: World, row: Dossier, code: str = "ENVOYEE", **more) -> NotificationEntry:
    kept = NotificationEntry(
        **{
            "dossier_id": row.id,
            "session_id": row.session_id,
            "subject": world.treating.idnps,
            "practitioner_id": world.treating.id,
            "code": code,
            "due_at": datetime(2026, 3, 17, 7, 0, tzinfo=UTC),
            "decided_at": datetime(2026, 3, 17, 7, 0, tzinfo=UTC),
        }
        | more
    )
    world.session.add(kept)
    return kept


def mail(world: World, row: Dossier, *, kind: str = "M1", state: str = "envoye", **more) -> Message:
    """A mail that left four minutes after it was made; its own clock is not the meeting's."""
    made = datetime(2029, 1, 1, tzinfo=UTC)
    kept = Message(
        **{
            "direction": "out",
            "channel": "mssante",
            "kind": kind,
            "key": uuid.uuid4().hex,
            "content": b"x",
            "sha256": uuid.uuid4().hex,
            "size_bytes": 1,
            "state": state,
            "recipient": "nguyen@medecin.mssante.fr",
            "recipient_id": world.treating.id,
            "dossier_id": row.id,
            "session_id": row.session_id,
            "created_at": made,
            "done_at": made + timedelta(minutes=4),
            "domain_at": datetime(2026, 3, 17, 7, 0, tzinfo=UTC),
        }
        | more
    )
    world.session.add(kept)
    world.session.flush()
    return kept


def receipt(world: World, message: Message, kind: str, minute: int, code: str | None = None) -> None:
    at = datetime(2026, 3, 17, 9, minute, tzinfo=UTC)
    world.session.add(Receipt(message_id=message.id, kind=kind, code=code, at=at))


def labels_of(world: World, row: Dossier) -> list[tuple[str, ...]]:
    world.session.flush()
    found = facts.notices(world.session, row.session_id, [row.id])
    return [register.notice_labels(one, "Europe/Paris") for one in found[row.id]]


@pytest.fixture
def world(store):
    with store.session() as session:
        made = build(session)
        session.commit()
        yield made


@pytest.mark.req("S2-018")
@pytest.mark.parametrize("planned", [False, True], ids=["at once", "after the planner"])
def test_the_information_of_the_treating_physician_is_that_or_the_reason(site: Site, *, planned: bool) -> None:
    """Eligible: « prévue »; each save that changes a condition gives its reason, before the planner has seen it too."""
    row = site.world.dossier()
    # As the inscription's own transaction would have it: the physician has been known since the registration.
    site.world.session.execute(update(Correspondent).values(since=row.registered_at))
    site.world.session.commit()
    cases = [
        ({}, "Notification avant RCP prévue le 17/03/2026"),
        ({"use_personal": False}, "Aucune adresse cochée (personnelle ou secrétariat)"),
        ({"use_personal": True}, "Notification avant RCP prévue le 17/03/2026"),
        ({"practitioner_id": site.world.requester.id}, "Médecin traitant et demandeur sont la même personne"),
        ({"practitioner_id": None, "display": "Dr Paul SANSNUMERO"}, "Médecin traitant sans numéro RPPS"),
    ]
    browser = site.browser(site.world.coordinator)
    for change, expected in cases:
        if change:
            about = update(Correspondent).where(Correspondent.role == "medecin-traitant")
            site.world.session.execute(about.values(change))
            site.world.session.commit()
        if planned:
            plan_due(site.steps, LETTERS)
        page = browser.get(f"/dossiers/{row.id}")
        [line] = page.xpath("//section[@aria-labelledby='correspondants']//tr[th[contains(., 'Médecin traitant')]]")
        assert read(line.xpath("td[@data-label='Informations']")[0]) == expected
        site.fresh()


def test_a_setting_that_nobody_can_read_hides_no_fiche(site: Site) -> None:
    row = site.world.dossier()
    site.world.rcp.notification = {"active": True, "jours": "beaucoup"}
    site.world.session.commit()
    assert "Notification non encore planifiée" in read(site.browser(site.world.coordinator).get(f"/dossiers/{row.id}"))


def test_what_became_of_the_mail_is_said_in_order(world: World) -> None:
    row = world.dossier()
    message = mail(world, row, state="lu")
    entry(world, row, message_id=message.id)
    receipt(world, message, "retardee", 1)
    receipt(world, message, "remise", 5)
    receipt(world, message, "lue", 30)
    [line] = row.correspondents[:1]
    line.connected_at = datetime(2026, 3, 17, 10, 0, tzinfo=UTC)
    world.session.add(
        Contribution(
            dossier_id=row.id,
            key="k",
            author_id=world.treating.id,
            author_name="NGUYEN",
            text="Vit seule.",
            at=datetime(2026, 3, 18, 10, 0, tzinfo=UTC),
        )
    )
    assert labels_of(world, row) == [
        (
            "Notification envoyée le 17/03/2026 à 08h00",
            "Remise le 17/03/2026 à 10h05",
            "Lue le 17/03/2026 à 10h30",
            "Fiche consultée le 17/03/2026 à 11h00",
            "Contribution du 18/03/2026",
        )
    ]


@pytest.mark.parametrize(
    ("state", "reason", "failed", "expected"),
    [
        ("refuse", "smtp-550 5.1.1", None, ["Échec de remise : adresse inconnue (550 5.1.1) – à traiter"]),
        ("parque", "connect", None, ["Échec de remise : opérateur injoignable (connect) – à traiter"]),
        (
            "rejete",
            "",
            "5.2.2",
            [
                "Notification envoyée le 17/03/2026 à 08h00",
                "Échec de remise : boîte pleine (5.2.2) – à traiter",
            ],
        ),
    ],
)
def test_what_did_not_arrive_says_why(
    world: World, state: str, reason: str, failed: str | None, expected: list[str]
) -> None:
    row = world.dossier()
    message = mail(world, row, state=state, reason=reason)
    entry(world, row, "ECHEC", message_id=message.id)
    if failed:
        receipt(world, message, "rejetee", 5, failed)
    assert [list(one) for one in labels_of(world, row)] == [expected]


def test_what_never_left_says_so(world: World) -> None:
    row = world.dossier()
    entry(world, row, "ECHEC")
    assert labels_of(world, row) == [("Échec de remise : non envoyée avant la séance – à traiter",)]


def test_a_dossier_always_has_a_line(world: World) -> None:
    plain, nobody, changed = world.dossier(), world.dossier(), world.dossier()
    world.session.execute(
        update(Correspondent)
        .where(Correspondent.dossier_id == nobody.id, Correspondent.role == "medecin-traitant")
        .values(role="correspondant")
    )
    entry(world, changed, "NON_MT", subject="medecin-traitant", practitioner_id=None)
    assert labels_of(world, plain) == [("Notification non encore planifiée",)]
    assert labels_of(world, nobody) == [("Médecin traitant non renseigné",)]
    assert labels_of(world, changed) == [("Notification non encore planifiée",)]


def test_who_was_told_stays_when_another_takes_his_place(world: World) -> None:
    row = world.dossier()
    former = world.practitioner("FORMER")
    message = mail(world, row)
    entry(world, row, subject=former.idnps, practitioner_id=former.id, message_id=message.id)
    world.session.flush()
    found = facts.notices(world.session, row.session_id, [row.id])[row.id]
    assert [(one.person.family, one.code) for one in found if one.person] == [("FORMER", "ENVOYEE"), ("NGUYEN", None)]


def cells(page: html.HtmlElement, section: str) -> list[list[str]]:
    lines = page.xpath(f"//section[@aria-labelledby='{section}']//tbody/tr")
    return [[read(cell) for cell in line] for line in lines]


@pytest.mark.req("S2-052")
def test_the_page_says_of_each_mail_when_it_arrived(site: Site) -> None:
    world = site.world
    told, failed, late = world.dossier(rank=1), world.dossier(rank=2), world.dossier(rank=3)
    message = mail(world, told, state="accepte")
    entry(world, told, message_id=message.id)
    receipt(world, message, "remise", 5)
    lost = mail(world, failed, state="rejete")
    entry(world, failed, "ECHEC", message_id=lost.id)
    receipt(world, lost, "rejetee", 5, "5.1.1")
    entry(world, late, "NON_DELAI")
    sent = mail(world, told, kind="M6", state="lu", details={"version": 1})
    receipt(world, sent, "remise", 10)
    receipt(world, sent, "lue", 20)
    refused = mail(world, told, kind="M6", state="refuse", reason="smtp-552 5.3.4", details={"version": 2})
    entry(world, failed, "NON_MSS", kind="M6.1")
    world.session.commit()
    browser = site.browser(world.coordinator)
    [link] = browser.get(f"/seances/{world.meeting.id}").xpath("//a[contains(@href, '/registre')]/@href")
    page = browser.get(link)
    who = "Docteur Camille NGUYEN Médecine générale"
    assert [[*line[1:]] for line in cells(page, "notifications")] == [
        [
            who,
            "Notification envoyée le 17/03/2026 à 08h00",
            "17/03/2026 à 08h00",
            "17/03/2026 à 08h04",
            "17/03/2026 à 10h05",
            "–",
            "–",
            "–",
        ],
        [
            who,
            "Échec de remise : adresse inconnue (5.1.1) – à traiter",
            "17/03/2026 à 08h00",
            "17/03/2026 à 08h04",
            "–",
            "–",
            "–",
            "–",
        ],
        [who, "Dossier inscrit après la limite du 17/03/2026 à 08h00", "–", "–", "–", "–", "–", "–"],
    ]
    name = "Docteur Camille NGUYEN"
    assert [[*line[1:]] for line in cells(page, "comptes-rendus")] == [
        [
            name,
            "Compte rendu (version 1)",
            "Lu",
            "17/03/2026 à 08h04",
            "17/03/2026 à 10h10",
            "17/03/2026 à 10h20",
        ],
        [
            name,
            "Compte rendu (version 2)",
            "Échec de remise : message trop grand (552 5.3.4) – à traiter",
            "Refusé",
            "–",
            "–",
        ],
        [name, "Compte rendu (version 1)", "Adresse MSSanté inconnue", "–", "–", "–"],
    ]
    said = read(page)
    for count in ("1 notifié", "1 échec à traiter", "1 non notifié"):
        assert count in said
    assert refused.recipient not in page.text_content(), "no address stands in the register"


def test_a_dossier_that_left_after_its_physician_was_told_stays(site: Site) -> None:
    world = site.world
    gone = world.dossier(state="annule")
    silent = world.dossier(state="annule")
    moved = world.dossier()
    for one in (gone, moved):
        entry(world, one, message_id=mail(world, one).id)
    other = RcpSession(
        rcp_id=world.rcp.id,
        identifier="AUTRE",
        on=world.meeting.on + timedelta(days=7),
        start=world.meeting.start,
        end=world.meeting.end,
        zone=world.meeting.zone,
        starts_at=world.meeting.starts_at + timedelta(days=7),
        ends_at=world.meeting.ends_at + timedelta(days=7),
    )
    world.session.add(other)
    world.session.flush()
    moved.session_id = other.id
    world.session.commit()
    page = site.browser(world.coordinator).get(f"/seances/{world.meeting.id}/registre")
    firsts = [line[0] for line in cells(page, "notifications")]
    assert [(gone.reference in one, "Annulé" in one) for one in firsts[:1]] == [(True, True)]
    assert [(moved.reference in one, "Déplacé à une autre séance" in one) for one in firsts[1:]] == [(True, True)]
    assert silent.reference not in read(page)


@pytest.mark.parametrize("file", ["registre", "registre.csv"])
def test_only_who_prepares_the_session_reads_its_register(site: Site, file: str) -> None:
    world = site.world
    row = world.dossier()
    entry(world, row)
    elsewhere = build(world.session)
    world.session.commit()
    path = f"/seances/{world.meeting.id}/{file}"
    for person in (world.treating, world.requester, world.stranger, elsewhere.coordinator):
        answer = site.browser(person).client.get(path)
        assert answer.status_code == 404
        assert "PAT-TROIS" not in answer.text
    site.browser(world.coordinator).get(f"/seances/{uuid.uuid4()}/{file}", 404)
    assert site.browser().client.get(path).status_code == 303
    assert site.browser(world.coordinator).client.get(path).status_code == 200
    refused = [line for line in site.audit() if line["event"] == "refus"]
    assert [line["object_id"] for line in refused[:4]] == [str(world.meeting.id)] * 4
    [line] = [line for line in site.audit() if line["event"] == "consultation"]
    assert (line["object_type"], line["object_id"]) == ("RcpSession", str(world.meeting.id))
    assert line["persons"] == [str(row.record_id)]


def test_the_file_opens_in_a_spreadsheet_and_holds_no_formula(site: Site) -> None:
    world = site.world
    world.rcp.title = '=HYPERLINK("http://mal.example")'
    for prefix in ("=1+1", "+33", "-2", "@SUM(1)"):
        row = world.dossier(world.record(birth_family=prefix, sex="U"), rank=1)
        world.session.execute(
            update(Correspondent)
            .where(Correspondent.dossier_id == row.id, Correspondent.role == "medecin-traitant")
            .values(practitioner_id=None, display=f'{prefix};"x"\nDr')
        )
    told = world.dossier(rank=2)
    message = mail(world, told, state="accepte")
    entry(world, told, message_id=message.id)
    receipt(world, message, "remise", 5)
    mail(world, told, kind="M6", state="envoye", details={"version": 1})
    world.session.commit()
    answer = site.browser(world.coordinator).client.get(f"/seances/{world.meeting.id}/registre.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    expected = f'attachment; filename="registre-2026-03-19-{str(world.meeting.id)[:8]}.csv"'
    assert answer.headers["content-disposition"] == expected
    assert answer.content.startswith(b"\xef\xbb\xbfS\xc3\xa9ance;Dossier;Patient;Naissance;M\xc3\xa9decin;")
    head, *rows = csv.reader(io.StringIO(answer.content.decode("utf-8-sig"), newline=""), delimiter=";")
    assert [len(row) for row in rows] == [len(head)] * 6
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert rows[0][4] == '\'=1+1;"x"\nDr'
    last = dict(zip(head, rows[4], strict=True))
    assert last == {
        "Séance": '\'=HYPERLINK("http://mal.example"), 19/03/2026 14:00',
        "Dossier": told.reference,
        "Patient": "Mme PAT-TROIS DOMINIQUE",
        "Naissance": "28/03/1979",
        "Médecin": "Docteur Camille NGUYEN",
        "Spécialité": "Médecine générale",
        "Courriel": "Notification",
        "Code": "ENVOYEE",
        "Information": "Notification envoyée le 17/03/2026 à 08h00",
        "Prévu le": "17/03/2026 08:00",
        "Envoyé le": "17/03/2026 08:04",
        "Remis le": "17/03/2026 10:05",
        "Lu le": "",
        "Fiche consultée le": "",
        "Contribution le": "",
    }
    report = dict(zip(head, rows[5], strict=True))
    assert (report["Courriel"], report["Code"], report["Remis le"]) == ("Compte rendu (version 1)", "ENVOYEE", "")


def test_sixty_dossiers_ask_no_more_of_the_database_than_one(world: World) -> None:
    asked: list[str] = []
    engine = world.session.get_bind()
    caller = world.caller(world.coordinator)

    def count(*arguments) -> None:
        asked.append(arguments[2])

    def fill(number: int) -> None:
        for _ in range(number):
            row = world.dossier()
            message = mail(world, row)
            entry(world, row, message_id=message.id)
            receipt(world, message, "remise", 5)
            mail(world, row, kind="M6", details={"version": 1})
        world.session.commit()

    def questions() -> tuple[int, int]:
        world.session.expire_all()
        row = world.session.get_one(RcpSession, world.meeting.id)
        words.slot(row)
        event.listen(engine, "before_cursor_execute", count)
        try:
            page, _ = register.register_page(world.session, caller, row)
        finally:
            event.remove(engine, "before_cursor_execute", count)
        number = len(asked)
        asked.clear()
        assert len(page.notices) == len(page.reports)
        return number, len(page.notices)

    fill(1)
    few = questions()
    fill(59)
    assert few == (questions()[0], 1)
    assert questions()[1] == 60
    assert few[0] <= 9


def test_no_mail_is_read_to_make_the_register(world: World) -> None:
    """Sixty reports of several hundred KiB are not taken from the database to say when they left."""
    row = world.dossier()
    entry(world, row, message_id=mail(world, row).id)
    world.session.commit()
    asked: list[str] = []
    engine = world.session.get_bind()

    def keep(*arguments) -> None:
        asked.append(arguments[2])

    event.listen(engine, "before_cursor_execute", keep)
    try:
        facts.notices(world.session, row.session_id, [row.id])
        facts.sendings(world.session, row.session_id, [row.id])
        facts.listed(world.session, access.SYSTEM, row.session_id)
    finally:
        event.remove(engine, "before_cursor_execute", keep)
    assert asked
    assert not [one for one in asked if "message.content" in one]


def test_an_empty_session_says_so(site: Site) -> None:
    page = site.browser(site.world.coordinator).get(f"/seances/{site.world.meeting.id}/registre")
    assert "Aucun dossier n’est inscrit à cette séance." in read(page)
    assert not page.xpath("//a[contains(@href, '.csv')]")
