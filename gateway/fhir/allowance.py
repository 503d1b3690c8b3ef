"""What one Bundle of requests may take altogether: seconds of work, bytes of its answer.

Promises: each limit that ends it names itself and its value; one reading of the clock an entry. Not promised: that an
entry under way is stopped, but for its searches (`gateway.fhir.reading.Budget`).
"""

from __future__ import annotations

import time

from gateway.errors import InvalidContent
from gateway.fhir.bundle import Answer
from gateway.fhir.reading import too_long
from gateway.settings import Limits

__all__ = ["Allowance"]


class Allowance:
    """Of one Bundle.

    Attributes
    ----------
    until
        When it must be done, by `time.monotonic`.
    """

    def __init__(self, limits: Limits) -> None:
        self.until = time.monotonic() + limits.bundle_seconds
        self._limits = limits
        self._room = limits.answer_bytes

    def begin(self) -> None:
        """Count the answer from nothing: a step begins, or begins again after a clash; its time goes on."""
        self._room = self._limits.answer_bytes

    def require_time(self) -> None:
        """Refuse to go on when the time is over.

        Raises
        ------
        InvalidContent
            ``bundle-trop-long``.
        """
        if time.monotonic() >= self.until:
            raise too_long(self._limits)

    def take(self, answer: Answer) -> None:
        """Count what an entry is answered; what does not fit is not counted.

        Raises
        ------
        InvalidContent
            ``reponse-trop-grande``.
        """
        size = len(answer.body or b"") + len(answer.outcome or b"")
        if size > self._room:
            text = f"Réponse trop grande : {self._limits.told('answer_bytes')} octets pour tout un Bundle."
            raise InvalidContent("reponse-trop-grande", text)
        self._room -= size
