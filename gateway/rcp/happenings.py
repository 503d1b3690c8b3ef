"""What happens here that others may have asked to be told of; who asked, and how he is told, is the wires' business.

Promises: what a step tells exists exactly if the step does; a kind says the same whatever the wire. Not promised: that
anybody listens.
"""

from __future__ import annotations

import uuid
from typing import Final

from gateway.model.subscription import Happening
from gateway.rcp.step import Step

__all__ = ["CHANNEL", "STUDY_SETTLED", "tell"]

#: The outbox's channel to those who asked, and what its messages are.
CHANNEL: Final = "abonnement"

#: Nothing came any more for a study that stands with its patient.
STUDY_SETTLED: Final = "etude-complete"


def tell(step: Step, kind: str, root_id: uuid.UUID) -> None:
    """Say in this step that something happened to a root."""
    step.session.add(Happening(kind=kind, root_id=root_id))
