"""The error box by its pages: who sees what, each act once, and what is never shown."""

from __future__ import annotations

import email
import email.policy
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update

from gateway.model.directory import Mailbox
from gateway.model.dossier import Correspondent, Dossier
from gateway.model.meeting import RcpMember
from gateway.model.message import Message, NotificationEntry
from gateway.model.person import WorkItem
from gateway.rcp import access, mail_events
from gateway.rcp.notification import plan_due
from tests.unit.portal.conftest import LETTERS, Browser, Site, words
from tests.world import build

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

SECRET = "Mme DUPONT va mieux depuis mardi"


@pytest.fixture
def dossier(site: Site) -> Dossier:
    row = site.world.dossier()
    site.world.session.execute(update(Correspondent).values(since=row.registered_at))
    site.world.session.commit()
    return row


@pytest.fixture
def organiser(site: Site) -> Browser:
    return site.browser(site.world.coordinator)


def bounced(site: Site, *, status: str = "5.1.1") -> tuple[uuid.UUID, uuid.UUID]:
    """Let the notification leave and come back; the item and the message."""
    site.clock.at = site.world.meeting.starts_at.replace(day=17, hour=7)
    plan_due(site.steps, LETTERS)

    def verb(step):
        message = step.session.scalars(select(Message).where(Message.direction == "out")).one()
        message.state = "envoye"
        source = kept(step, b"")
        mail_events.take_receipt(step, message, source, "rejetee", status=status, code="550")
        return message.id

    message_id = site.steps.run(access.SYSTEM, verb)
    [item] = site.fresh().session.scalars(select(WorkItem)).all()
    return item.id, message_id


def kept(step, content: bytes, **more) -> Message:
    number = uuid.uuid4().hex
    row = Message(
        **{
            "direction": "in",
            "channel": "mssante",
            "kind": "human",
            "key": f"1.{number}",
            "content": content,
            "sha256": number * 2,
            "size_bytes": len(content),
            "state": "quarantaine",
            "sender": "inconnu@medecin.mssante.example",
            "domain_at": step.now,
        }
        | more
    )
    step.session.add(row)
    step.session.flush()
    return row


def stray(site: Site) -> uuid.UUID:
    """A mail that answers nothing of ours."""

    def verb(step):
        message = kept(step, SECRET.encode())
        mail_events.ask_person(step.session, message, "courriel-human")
        return step.session.scalars(select(WorkItem.id).where(WorkItem.message_id == message.id)).one()

    return site.steps.run(access.SYSTEM, verb)


def item(site: Site, item_id: uuid.UUID) -> WorkItem:
    return site.fresh().session.get_one(WorkItem, item_id)


def test_a_lost_address_is_explained_and_another_one_is_offered(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    world = site.world
    box = Mailbox(
        practitioner_id=world.treating.id,
        address="autre@medecin.mssante.fr",
        source="essai",
        as_of=world.treating.as_of,
    )
    world.session.add(box)
    world.session.commit()
    item_id, message_id = bounced(site)
    listed = organiser.get("/erreurs")
    assert "Ce courriel n’a pas été remis." in words(listed)
    assert dossier.reference in words(listed)
    page = organiser.get(f"/erreurs/{item_id}")
    said = words(page)
    assert "Non remis : adresse inconnue (5.1.1)" in said
    assert "Elle n’est plus proposée ni utilisée." in said
    assert page.xpath("//select[@name='adresse']/option/@value") == [str(box.id)]
    assert "autre@medecin.mssante.fr (personnelle)" in said

    organiser.post(f"/erreurs/{item_id}/renvoyer", 422, adresse="espion@ailleurs.example")
    for _ in range(2):  # the same form twice sends once
        answer = organiser.post(f"/erreurs/{item_id}/renvoyer", adresse=str(box.id))
    assert "Un nouveau courriel part à cette adresse." in words(organiser.get(answer.headers["location"]))
    session = site.fresh().session
    old, new = session.scalars(select(Message).where(Message.direction == "out").order_by(Message.id)).all()
    assert (old.id, new.recipient, new.kind, new.state) == (message_id, "autre@medecin.mssante.fr", "M1", "en-attente")
    assert old.message_id != new.message_id
    mail = email.message_from_bytes(new.content, policy=email.policy.default)
    assert "autre@medecin.mssante.fr" in mail["to"]
    assert dossier.record.birth_family in mail.get_content()
    [line] = session.scalars(select(NotificationEntry).where(NotificationEntry.kind == "M1")).all()
    assert (line.code, line.message_id) == ("ENVOYEE", new.id)
    closed = item(site, item_id)
    assert (closed.decision, closed.closed_by) == ("renvoye", world.coordinator.idnps)
    plan_due(site.steps, LETTERS)  # what a person sent is not sent by the planner as well
    assert len(site.fresh().session.scalars(select(Message.id).where(Message.direction == "out")).all()) == 2


def test_the_same_bytes_may_be_sent_again_until_the_meeting(site: Site, organiser: Browser, dossier: Dossier) -> None:
    item_id, message_id = bounced(site, status="5.2.2")
    before = site.fresh().session.get_one(Message, message_id).content
    organiser.post(f"/erreurs/{item_id}/rejouer")
    again = site.fresh().session.get_one(Message, message_id)
    assert (again.state, again.content, again.details["replays"]) == ("en-attente", before, 1)
    assert item(site, item_id).decision == "rejoue"
    lines = [line for line in site.audit() if line.get("object_type") == "WorkItem" and line.get("action") == "U"]
    assert [line["object_id"] for line in lines] == [str(item_id)]


@pytest.mark.parametrize("kind", ["M1", "M3", "M4"])
def test_what_is_no_longer_true_is_not_sent(site: Site, organiser: Browser, dossier: Dossier, kind: str) -> None:
    item_id, message_id = bounced(site, status="5.2.2")
    site.world.session.execute(update(Message).where(Message.id == message_id).values(kind=kind))
    site.world.session.commit()
    site.clock.at = site.world.meeting.starts_at
    refused = organiser.post(f"/erreurs/{item_id}/rejouer", 409)
    assert "n’a plus d’objet" in refused.text
    assert item(site, item_id).closed_at is None
    assert site.fresh().session.get_one(Message, message_id).state == "rejete"


def test_an_address_that_fails_is_set_aside_by_a_person(site: Site, organiser: Browser, dossier: Dossier) -> None:
    item_id, _ = bounced(site, status="5.7.1")
    organiser.post(f"/erreurs/{item_id}/oublier")
    box = site.fresh().session.scalars(select(Mailbox).where(Mailbox.address == "nguyen@medecin.mssante.fr")).one()
    assert box.unusable_since is not None
    assert item(site, item_id).closed_at is None
    assert "Ne plus utiliser" not in words(organiser.get(f"/erreurs/{item_id}"))


def test_closing_needs_a_reason_and_is_done_by_one(site: Site, organiser: Browser, dossier: Dossier) -> None:
    item_id, _ = bounced(site)
    other = site.world.practitioner("LAVAL")
    site.world.session.add(RcpMember(rcp_id=site.world.rcp.id, practitioner_id=other.id, role="secretaire"))
    site.world.session.commit()
    path = f"/erreurs/{item_id}/clore"
    assert "Dites ce qui a été fait" in organiser.post(path, 422, motif="  ").text
    assert "Ce texte dépasse 300 caractères." in organiser.post(path, 422, motif="x" * 301).text
    organiser.post(path, motif="Médecin joint par téléphone")
    organiser.post(path, motif="Médecin joint par téléphone")
    site.browser(other).post(path, 409, motif="Autre raison")
    assert item(site, item_id).decision == "Médecin joint par téléphone"
    page = words(organiser.get(f"/erreurs/{item_id}"))
    assert "Situation traitée. Médecin joint par téléphone" in page
    assert "Que faire" not in page
    assert "Aucune erreur de messagerie n’attend." in words(organiser.get("/erreurs"))


def _colleague(site: Site, name: str) -> Browser:
    person = site.world.practitioner(name)
    site.world.session.add(RcpMember(rcp_id=site.world.rcp.id, practitioner_id=person.id, role="secretaire"))
    site.world.session.commit()
    return site.browser(person)


def _at_once(*acts: tuple[Browser, str, dict[str, str]]) -> list[int]:
    """Send forms at the same instant; the status of each."""
    together = threading.Barrier(len(acts))

    def send(act: tuple[Browser, str, dict[str, str]]) -> int:
        browser, path, fields = act
        together.wait(60)
        answer = browser.client.post(
            path, data={"csrf": browser.token, **fields}, headers={"origin": str(browser.client.base_url)}
        )
        if answer.status_code == 409:
            assert "Cette situation vient d’être traitée par une autre personne." in answer.text
        return answer.status_code

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(send, acts))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("renvoyer", "renvoyer"),
        ("rejouer", "rejouer"),
        ("clore", "clore"),
        ("renvoyer", "rejouer"),
        ("renvoyer", "clore"),
        ("rejouer", "clore"),
    ],
)
def test_two_people_on_one_item_at_once_are_one_act_and_one_refusal(
    site: Site, organiser: Browser, dossier: Dossier, mine: str, theirs: str
) -> None:
    world, other = site.world, _colleague(site, "LAVAL")
    boxes = [
        Mailbox(practitioner_id=world.treating.id, address=f"{name}@medecin.mssante.fr", source="essai",
                as_of=world.treating.as_of)
        for name in ("un", "deux")
    ]  # fmt: skip
    world.session.add_all(boxes)
    world.session.commit()
    item_id, message_id = bounced(site, status="5.2.2")
    path = f"/erreurs/{item_id}"
    fields = {"rejouer": {}, "clore": {"motif": "Joint par téléphone"}}
    acts = [
        (browser, f"{path}/{act}", fields.get(act) if act in fields else {"adresse": str(box.id)})
        for browser, act, box in zip((organiser, other), (mine, theirs), boxes, strict=True)
    ]
    found = _at_once(*acts)
    assert sorted(found) == [303, 409]
    first_won = found[0] == 303
    done = mine if first_won else theirs
    session = site.fresh().session
    out = session.scalars(select(Message).where(Message.direction == "out").order_by(Message.id)).all()
    assert len(out) == (2 if done == "renvoyer" else 1)
    first = session.get_one(Message, message_id)
    assert first.state == ("en-attente" if done == "rejouer" else "rejete")
    said = {"renvoyer": "renvoye", "rejouer": "rejoue", "clore": "Joint par téléphone"}[done]
    closed = item(site, item_id)
    assert closed.decision == said
    assert (closed.closed_by == world.coordinator.idnps) == first_won
    lines = [one for one in site.audit() if one.get("object_type") == "WorkItem" and one["event"] == "modification"]
    assert len(lines) == 1


def test_one_person_whose_form_goes_twice_at_once_sends_one_mail(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    box = Mailbox(practitioner_id=site.world.treating.id, address="un@medecin.mssante.fr", source="essai",
                  as_of=site.world.treating.as_of)  # fmt: skip
    site.world.session.add(box)
    site.world.session.commit()
    item_id, _ = bounced(site)
    act = (organiser, f"/erreurs/{item_id}/renvoyer", {"adresse": str(box.id)})
    assert _at_once(act, act, act) == [303, 303, 303]
    out = site.fresh().session.scalars(select(Message.recipient).where(Message.direction == "out").order_by(Message.id))
    assert out.all() == ["nguyen@medecin.mssante.fr", "un@medecin.mssante.fr"]


def test_a_mail_that_two_people_tie_at_once_belongs_to_one_dossier(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    twin = site.world.dossier()
    site.world.session.commit()
    other, item_id = _colleague(site, "LAVAL"), stray(site)
    references = (dossier.reference, twin.reference)
    found = _at_once(
        *(
            (browser, f"/erreurs/{item_id}/rattacher", {"reference": reference})
            for browser, reference in zip((organiser, other), references, strict=True)
        )
    )
    assert sorted(found) == [303, 409]
    session = site.fresh().session
    kept_at = session.scalars(select(Message.dossier_id).where(Message.direction == "in")).one()
    assert kept_at == (dossier.id, twin.id)[found.index(303)]


def test_an_address_that_two_people_set_aside_and_take_back_ends_as_one_of_them_said(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    other = _colleague(site, "LAVAL")
    item_id, _ = bounced(site, status="5.2.2")
    path = f"/erreurs/{item_id}"
    assert _at_once((organiser, f"{path}/oublier", {}), (other, f"{path}/reprendre", {})) == [303, 303]
    session = site.fresh().session
    unusable = session.scalars(
        select(Mailbox.unusable_since).where(Mailbox.address == "nguyen@medecin.mssante.fr")
    ).one()
    # What the item says last is what holds.
    assert item(site, item_id).details["adresse"] == ("perdue" if unusable is not None else "reprise")


def test_what_no_text_holds_is_taken_from_what_a_person_writes(site: Site, organiser: Browser) -> None:
    item_id = stray(site)
    organiser.post(f"/erreurs/{item_id}/rattacher", 404, reference="RCP-\x00AAAA-AA")
    organiser.post(f"/erreurs/{item_id}/clore", 422, motif="\x00\x07\u202e")
    organiser.post(f"/erreurs/{item_id}/clore", motif="Lu\x00 \u202epar\r\ntéléphone.")
    assert item(site, item_id).decision == "Lu par téléphone."


def test_a_mail_without_a_place_is_named_and_not_shown_until_it_is_tied(
    site: Site, organiser: Browser, dossier: Dossier
) -> None:
    item_id = stray(site)
    page = organiser.get(f"/erreurs/{item_id}")
    assert "inconnu@medecin.mssante.example" in words(page)
    assert SECRET not in page.text_content()
    assert organiser.client.get(f"/erreurs/{item_id}/courriel").status_code == 404
    organiser.post(f"/erreurs/{item_id}/rattacher", 404, reference="RCP-XXXX-00")
    organiser.post(f"/erreurs/{item_id}/rattacher", reference=dossier.reference.lower())
    got = organiser.client.get(f"/erreurs/{item_id}/courriel")
    assert (got.status_code, got.text) == (200, SECRET)
    assert got.headers["content-type"] == "application/octet-stream"
    assert "attachment" in got.headers["content-disposition"]
    read = [line for line in site.audit() if line.get("object_type") == "Message" and line["event"] == "consultation"]
    assert [line["dossier"] for line in read] == [str(dossier.id)]


def test_a_mail_that_came_may_be_read_again(site: Site, organiser: Browser, dossier: Dossier) -> None:
    item_id = stray(site)
    organiser.post(f"/erreurs/{item_id}/rejouer")
    message = site.fresh().session.get_one(Message, item(site, item_id).message_id)
    assert (message.state, message.attempts, message.details["replays"]) == ("garde", 0, 1)


@pytest.mark.parametrize("path", ["", "/rejouer", "/renvoyer", "/oublier", "/rattacher", "/clore"])
def test_nobody_else_learns_that_it_exists(site: Site, dossier: Dossier, path: str) -> None:
    item_id, _ = bounced(site)
    for person in (site.world.treating, site.world.stranger):
        browser = site.browser(person)
        if not path:
            browser.get(f"/erreurs/{item_id}", 404)
            browser.get("/erreurs", 404)
        else:
            browser.post(
                f"/erreurs/{item_id}{path}", 404, motif="x", reference=dossier.reference, adresse="a@b.example"
            )
    assert item(site, item_id).closed_at is None


def test_another_network_sees_none_of_it(site: Site, dossier: Dossier) -> None:
    item_id, _ = bounced(site)
    other = build(site.world.session)
    site.world.session.commit()
    browser = site.browser(other.coordinator)
    browser.get(f"/erreurs/{item_id}", 404)
    assert "Aucune erreur de messagerie n’attend." in words(browser.get("/erreurs"))


def test_the_list_is_narrowed_by_what_and_by_age(site: Site, organiser: Browser, dossier: Dossier) -> None:
    bounced(site)
    stray(site)
    page = organiser.get("/erreurs")
    assert [words(one) for one in page.xpath("//select[@name='genre']/option")] == [
        "Tout (2)",
        "Courriels envoyés (1)",
        "Courriels reçus (1)",
        "Médecins non informés (0)",
    ]
    assert len(organiser.get("/erreurs?genre=recus").xpath("//tbody/tr")) == 1
    assert "Aucune situation ne répond à ce filtre." in words(organiser.get("/erreurs?age=7j"))
    assert len(organiser.get("/erreurs?genre=inconnu&age=x").xpath("//tbody/tr")) == 2
