"""The HL7 v2 component of one process: the port, who calls, and where messages go, built from the settings."""

from __future__ import annotations

from gateway.exchange.blobs import BlobStore
from gateway.exchange.inbox import Inbox
from gateway.hl7v2.intake import Hl7Intake
from gateway.hl7v2.mllp import Limits, Mllp
from gateway.hl7v2.peers import Peers
from gateway.rcp.step import Steps
from gateway.settings import Settings

__all__ = ["component", "reader"]


def reader(settings: Settings, steps: Steps, blobs: BlobStore) -> Hl7Intake:
    """Build what reads kept messages: the port's own, and the sweep's."""
    return Hl7Intake(steps, blobs, strict=settings.mllp.matrix == "strict")


def component(settings: Settings, steps: Steps, blobs: BlobStore) -> Mllp:
    """Build the port: ``start()`` it, and ``stop()`` it to drain."""
    intake = reader(settings, steps, blobs)
    intake.attach(Inbox(steps.store, blobs, [intake]))
    limits = settings.limits
    return Mllp(
        bind=settings.mllp.bind,
        peers=Peers(steps, trial=not settings.prod),
        taker=intake,
        limits=Limits(
            message_bytes=limits.mllp_message_bytes,
            message_told=limits.told("mllp_message_bytes"),
            connections=limits.mllp_connections,
        ),
        tls=settings.mllp.tls.serving(),
    )
