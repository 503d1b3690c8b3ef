"""Who and what the acts share: the stage, the stand-ins, the people of the story, and what was learnt on the way."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.routing import Mount

from gateway.demo import fixtures
from gateway.demo.ehr import Ehr
from gateway.demo.letters import MailServer
from gateway.demo.mail_operator import MailOperator
from gateway.demo.mail_pages import mail_app
from gateway.demo.narration import Narrator, NotSeen
from gateway.demo.psc_accounts import Account, Post
from gateway.demo.psc_standin import PscStandIn
from gateway.demo.stage import Addresses, Stage, free_port, usual_ports
from gateway.rcp.directory import ProfessionalFacts
from gateway.rcp.registry import PartnerFacts, slug
from gateway.web.background import served

__all__ = ["APPLICATION_BOX", "People", "Seen", "Theatre", "open_theatre"]

APPLICATION_BOX = "rcp.passerelle@exemple.mssante.fr"
_HOSPITAL = "CHU X"
_POLL_S = 0.5
_HTTP, _DICOM, _MLLP, _PSC, _SMTP, _IMAP, _BOXES = 8080, 11112, 2575, 8090, 8025, 8143, 8091
# Who the gateway is in documents, UIDs and mails; the arc is the specification's fictitious one.
_FINESS, _OID_ROOT, _NIL = "000897413", "1.2.250.1.999999.2026", "DEMONSTRATION"


@dataclass(frozen=True, slots=True)
class People:
    """The people of the story."""

    treating: ProfessionalFacts
    requester: ProfessionalFacts
    coordinator: ProfessionalFacts
    stranger: ProfessionalFacts


@dataclass
class Seen:
    """What the acts learnt from the wires, for the acts that follow."""

    dossier_url: str = ""
    study_uid: str = ""
    pdf: bytes = b""
    cda: bytes = b""
    report: str = ""


@dataclass
class Theatre:
    """Everything that an act may touch."""

    folder: Path
    stage: Stage
    narrator: Narrator
    ehr: Ehr
    psc: PscStandIn
    mail: MailServer
    people: People
    password: str
    boxes_url: str
    psc_origin: str
    seen: Seen = field(default_factory=Seen)

    @property
    def url(self) -> str:
        """The portal."""
        return self.stage.addresses.public_url

    def box(self, who: ProfessionalFacts) -> str:
        """The MSSanté address of somebody."""
        return who.mailboxes[0].address

    def partner_keys(self) -> dict[str, dict[str, Any]]:
        """The public keys of this run's partners, by name."""
        return {_HOSPITAL: self.ehr.public_keys}

    def patiently(
        self, ask: Callable[[], list[dict[str, Any]]], step: str, within_s: float = 180.0
    ) -> list[dict[str, Any]]:
        """Ask until there is an answer: what is done after the answer (representations, deliveries) takes a moment."""
        deadline = time.monotonic() + within_s
        while not (found := ask()):
            if time.monotonic() > deadline:
                raise NotSeen(step, f"rien après {within_s:.0f} s")
            time.sleep(_POLL_S)
        return found


def _account(who: ProfessionalFacts, note: str) -> Account:
    places = fixtures.places()
    posts = tuple(
        Post(
            profession=who.profession,
            speciality=who.speciality or "",
            structure=f"1{practice.finess}",
            structure_name=places.get(practice.finess or "", ""),
        )
        for practice in who.practices
    )
    return Account(f"8{who.rpps}", who.given, who.family, title=who.title or "", posts=posts, note=note)


def _client(scopes_of: str) -> PartnerFacts:
    rows = msgspec.json.decode((fixtures.fixtures_dir() / "partners.json").read_bytes())
    row = next(row for row in rows if row["name"] == scopes_of)
    row.pop("ae_titles", None)
    return msgspec.convert(row, PartnerFacts)


@contextlib.contextmanager
def open_theatre(folder: Path, narrator: Narrator) -> Iterator[Theatre]:
    """Start the stand-ins and describe the gateway; nothing of the gateway runs yet."""
    known = fixtures.directory()
    people = People(known["10100000040"], known["10100000024"], known["10100000016"], known["10100000065"])
    password, secret = secrets.token_urlsafe(9), secrets.token_urlsafe(24)
    boxes = [box.address for who in known.values() for box in who.mailboxes] + [APPLICATION_BOX]
    notes = {
        people.treating.rpps: "médecin traitant de la patiente",
        people.requester.rpps: "demandeur",
        people.coordinator.rpps: "coordonnatrice de la RCP",
        people.stranger.rpps: "un confrère que le dossier ne concerne pas",
    }
    accounts = [_account(who, notes.get(who.rpps, "")) for who in known.values()]
    with contextlib.ExitStack() as stack:
        usual = stack.enter_context(usual_ports())

        def port(wanted: int) -> int:
            return free_port(wanted if usual else 0)

        addresses = Addresses(http=port(_HTTP), dicom=port(_DICOM), mllp=port(_MLLP))
        psc = PscStandIn(
            accounts,
            client_id="rcp-gateway",
            client_secret=secret,
            redirect_uris=[f"{addresses.public_url}/psc/retour"],
            logout_uris=[f"{addresses.public_url}/", addresses.public_url],
        )
        operator = stack.enter_context(
            MailOperator(
                folder / "operator",
                dict.fromkeys(boxes, password),
                smtp_port=port(_SMTP),
                imap_port=port(_IMAP),
            )
        )
        origin = stack.enter_context(psc.serving(port(_PSC)))
        pages = Starlette(routes=[Mount("/messagerie", mail_app(operator))])
        boxes_url = stack.enter_context(served(pages, port=port(_BOXES))) + "/messagerie/"
        facts = _client(_HOSPITAL)
        ehr = Ehr(addresses.public_url, slug(facts.name), " ".join(facts.fhir_scopes))
        stack.callback(ehr.close)
        stage = Stage(
            folder,
            addresses,
            {
                "RCP_ORGANISATION_FINESS": _FINESS,
                "RCP_OID_ROOT": _OID_ROOT,
                "RCP_MSSANTE_NIL": _NIL,
                "RCP_MSSANTE_SMTP_URL": operator.smtp_url(APPLICATION_BOX),
                "RCP_MSSANTE_IMAP_URL": operator.imap_url(APPLICATION_BOX),
                "RCP_MSSANTE_ADDRESS": APPLICATION_BOX,
                "RCP_MSSANTE_TLS_CA": str(operator.authorities),
                "RCP_PSC_DISCOVERY_URL": psc.discovery_url,
                "RCP_PSC_CLIENT_ID": psc.client_id,
                "RCP_PSC_CLIENT_SECRET": secret,
            },
        )
        yield Theatre(
            folder=folder,
            stage=stage,
            narrator=narrator,
            ehr=ehr,
            psc=psc,
            mail=MailServer("127.0.0.1", operator.imap_port, operator.authorities, password),
            people=people,
            password=password,
            boxes_url=boxes_url,
            psc_origin=origin,
        )
