"""A served gateway with its world, a person at a browser, and a PACS: what tests in Chromium share."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import dcmread
from pynetdicom import AE

from gateway.app.gateway import Gateway, open_gateway
from gateway.app.http import application
from gateway.demo.ct_phantom import Phantom, write_series
from gateway.demo.psc_accounts import Account, Post
from gateway.demo.psc_standin import PscStandIn
from gateway.dicom.storage import component
from gateway.model.directory import Practitioner
from gateway.model.dossier import Dossier
from gateway.model.meeting import RcpMember
from gateway.model.partner import PartnerCredential
from gateway.settings import Dicom, Mail, Organisation, Psc, Settings
from gateway.transport import Address
from gateway.web.background import served
from tests.loopback import free_port
from tests.psc_portal import portal_address
from tests.world import World, build

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PHONE = {"width": 360, "height": 640}
DESK = {"width": 1280, "height": 900}
HOSTILE = "<img src=x onerror=document.title='volé'>"
#: Two days before the session of the world, and during it.
BEFORE = datetime(2026, 3, 17, 13, 0, tzinfo=UTC)
AE_TITLE = "CHUX_PACS"


@dataclass
class House:
    """The served gateway, its world, its dossiers and its provider."""

    origin: str
    gateway: Gateway
    world: World
    dossier: Dossier
    hostile: Dossier
    accounts: list[Practitioner]

    def fresh(self) -> World:
        """The world, read again."""
        self.world.session.rollback()
        self.world.session.expire_all()
        return self.world


@contextmanager
def served_house(database_url: str, folder: Path) -> Iterator[House]:
    """Serve the whole application over a migrated and empty database, with a provider of identities beside it."""
    port = free_port()
    address = portal_address(port)
    standin_accounts: list[Account] = []
    standin = PscStandIn(
        standin_accounts,
        client_id="rcp",
        client_secret="secret-du-simulateur",
        redirect_uris=[f"{address}/psc/retour"],
        logout_uris=[f"{address}/connexion"],
    )
    with standin.serving():
        settings = Settings(
            data_dir=folder,
            database_url=database_url,
            http_bind=Address("127.0.0.1", port),
            public_url=address,
            clock=BEFORE,
            psc=Psc(discovery_url=standin.discovery_url, client_id="rcp", client_secret="secret-du-simulateur"),
            mail=Mail(address="rcp@3c.exemple.mssante.fr"),
            organisation=Organisation(finess="990000010", oid_root="1.2.250.1.999.77", mssante_nil="000000"),
        )
        with open_gateway(settings) as gateway, gateway.store.session() as session:
            world, dossier, hostile = furnish(session)
            people = [world.treating, world.requester, world.coordinator, world.stranger]
            standin.accounts = tuple(
                Account(
                    who.idnps, who.given, who.family, "DR", (Post(speciality=who.speciality, structure_name="CHU X"),)
                )
                for who in people
            )
            with served(application(gateway), port=port) as origin:
                yield House(origin, gateway, world, dossier, hostile, people)


def furnish(session) -> tuple[World, Dossier, Dossier]:
    world = build(session)
    world.network.name, world.network.contact = "DCC d’essai (fictif)", "3C d’essai – 05 00 00 00 00"
    world.rcp.title = "Sénologie et gynécologie"
    world.rcp.webconference = {"lien": "https://visio.example.org/senologie", "complement": "Code : 134679"}
    for family, speciality in (("LAVAL", "SM05"), ("SIMON", "SM45")):
        world.rcp.members.append(member(world, world.practitioner(family, speciality=speciality)))
    clinical = {
        "tumour": {
            "label": "Tumeur du sein",
            "topography": {"code": "C50.4", "text": "Quadrant supéro-externe du sein"},
            "morphology": {"code": "8500/3", "text": "Carcinome canalaire infiltrant"},
        },
        "form": {
            "completed": True,
            "answers": [
                {"link_id": "motif.type", "values": ["Appareil : sein"]},
                {"link_id": "tumeur.tnm", "values": ["cT2 N1 M0"]},
                {"link_id": "etat.oms", "values": [1]},
            ],
        },
    }
    dossier = world.dossier(world.record(given_names=["DOMINIQUE", "ANNE"], birth_place="33063"), clinical=clinical)
    hostile = world.dossier(world.record(birth_family=HOSTILE), question=f"{HOSTILE}\n\nEt ensuite ?")
    session.commit()
    return world, dossier, hostile


def member(world: World, person: Practitioner):
    return RcpMember(rcp_id=world.rcp.id, practitioner_id=person.id, role="membre")


@dataclass
class Visitor:
    """A person at a browser."""

    context: BrowserContext
    page: Page
    origin: str

    def go(self, path: str) -> int:
        answer = self.page.goto(f"{self.origin}{path}")
        assert answer is not None
        return answer.status

    def sign_in(self, who: Practitioner) -> None:
        """From the sign-in page through the provider's list of accounts."""
        self.page.get_by_role("link", name="Pro Santé Connect").first.click()
        self.page.locator(f"button:has-text('{who.family}')").first.click()
        self.page.wait_for_url(lambda url: url.startswith(self.origin) and "/psc/" not in url)

    def read(self) -> str:
        return re.sub(r"\s+", " ", self.page.locator("main").inner_text())


def send_images(house: House, phantom: Phantom, folder: Path) -> None:
    """Send a series by C-STORE to the gateway's own DICOM port."""
    send_files(house, write_series(phantom, folder))


def send_files(house: House, paths: Sequence[Path]) -> None:
    """Send objects as they are, each in its own transfer syntax, as the PACS of the hospital."""
    session = house.world.session
    credential = {"partner_id": house.world.partner.id, "kind": "aet", "value": AE_TITLE}
    if not session.query(PartnerCredential).filter_by(**credential).count():
        session.add(PartnerCredential(**credential, details={"host": "127.0.0.1", "port": 104}))
    session.commit()
    pacs = AE(AE_TITLE)
    metas = [dcmread(path, stop_before_pixels=True).file_meta for path in paths]
    for context in {(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas}:
        pacs.add_requested_context(*context)
    port = component(
        replace(house.gateway.settings, dicom=Dicom(bind=Address("127.0.0.1", 0))),
        house.gateway.steps,
        house.gateway.blobs,
    )
    port.start()
    try:
        association = pacs.associate("127.0.0.1", port.port, ae_title="RCPGATEWAY")
        assert association.is_established
        statuses = [association.send_c_store(path).Status for path in paths]
        association.release()
    finally:
        port.stop()
    assert statuses == [0x0000] * len(statuses)
