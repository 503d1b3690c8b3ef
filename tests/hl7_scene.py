"""A hospital whose patient is the one of the sheet's messages, and the intake that its messages come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from gateway.exchange.blobs import BlobStore
from gateway.exchange.inbox import Inbox
from gateway.hl7v2.intake import Hl7Intake
from gateway.hl7v2.peers import caller_of
from gateway.model.message import Message
from gateway.model.store import Store
from gateway.rcp import identity
from gateway.rcp.access import Caller
from gateway.rcp.step import Steps
from tests.hl7_samples import said
from tests.world import World, build

TEST_INS = "urn:oid:1.2.250.1.213.1.4.10"
INS = "279035121518989"
IPP = {"system": "urn:oid:1.2.250.1.999.77.9", "value": "000123456"}
TRAITS = identity.traits_key("PAT-TROIS", "DOMINIQUE", "1979-03-28", "F")


@dataclass
class Scene:
    """The intake of one process, and what it keeps."""

    steps: Steps
    store: Store
    blobs: BlobStore
    world: World
    caller: Caller
    intake: Hl7Intake
    inbox: Inbox

    def take(self, content: bytes, caller: Caller | None = None) -> tuple[str, str, str, str]:
        """MSA-1, ERR-2, ERR-3 and ERR-5 of the answer."""
        return said(self.intake.take(content, caller or self.caller))

    def patient(self, **more: Any) -> tuple[Any, Any]:
        """The patient of the sheet, known by his INS unless told otherwise, and his dossier."""
        known = {"match_key": TRAITS, "ins_system": TEST_INS, "ins_value": INS, "ins_qualified": True}
        with self.store.session() as session:
            self.world.session = session
            record = self.world.record(**known | more)
            dossier = self.world.dossier(record)
            session.commit()
            return record.id, dossier.id

    def rows(self, model: Any, *where: Any) -> Any:
        with self.store.session() as session:
            return session.scalars(select(model).where(*where).order_by(model.id)).unique().all()

    def messages(self) -> list[tuple[str, str | None, str | None]]:
        return [(one.state, one.told, one.reason) for one in self.rows(Message)]


def open_scene(store: Store, steps: Steps, blobs: BlobStore) -> Scene:
    """Make the hospital, and the intake that its messages come to."""
    with store.session() as session:
        world = build(session)
        caller = caller_of(session, world.partner, address="127.0.0.1")
        session.commit()
    intake = Hl7Intake(steps, blobs)
    inbox = Inbox(store, blobs, [intake])
    return Scene(steps, store, blobs, world, caller, intake.attach(inbox), inbox)
