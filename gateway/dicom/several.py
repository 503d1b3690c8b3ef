"""Several pictures for one answer, for as long as somebody waits for it.

Promises: drawn side by side and given in their order; the broken ones are left out; a bound on time and on bytes over
all of them, each of which names itself, and on what all answers hold (`gateway.dicom.held`); who goes away has no
further one drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from fastapi import Request

from gateway.dicom.held import Held, Loan
from gateway.dicom.pictures import Picture
from gateway.errors import GatewayError, InvalidContent, Unavailable, Unsupported

__all__ = ["Several"]

_SECONDS: Final = 60.0
_BYTES: Final = 128 << 20


class Several:
    """Pictures of one answer.

    Parameters
    ----------
    draw
        Draws each.
    held
        Lends what they weigh.
    seconds, most_bytes
        Of all together.

    Attributes
    ----------
    loan
        Of their bytes, until the answer has left.
    refusal
        Of one that is broken; None when all were drawn.
    """

    def __init__(
        self,
        draw: Sequence[Callable[[], Awaitable[Picture]]],
        held: Held,
        *,
        seconds: float = _SECONDS,
        most_bytes: int = _BYTES,
    ) -> None:
        self._draw, self._seconds, self._most = draw, seconds, most_bytes
        self._drawn: dict[int, bytes] = {}
        self._held, self.loan = held, Loan(held, 0)
        self.refusal: GatewayError | None = None

    @property
    def contents(self) -> list[bytes]:
        """Those that were drawn, in their order."""
        return [self._drawn[place] for place in sorted(self._drawn)]

    async def drawn(self, request: Request, *, at_once: int) -> None:
        """Draw them.

        Raises
        ------
        InvalidContent
            ``dicom-rendered-time``, ``dicom-frames`` (bytes), and what a picture refuses when none can be drawn.
        Unavailable
            ``client-left``: whoever asked is gone. ``dicom-retrieval-busy``: other answers hold too much.
        """
        places = iter(range(len(self._draw)))  # of all that draw: each takes the next
        drawing = [asyncio.create_task(self._some(places)) for _ in range(at_once)]
        left = asyncio.create_task(_left(request))
        try:
            async with asyncio.timeout(self._seconds):
                waited = {left, *drawing}
                while not all(task.done() for task in drawing):
                    done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
        except TimeoutError:
            self.loan.end()
            text = f"Le dessin de ces images dépasse {self._seconds:g} s : demandez-en moins à la fois."
            raise InvalidContent("dicom-rendered-time", text, expression="frames", rule=True) from None
        except BaseException:
            self.loan.end()
            raise
        finally:
            for task in (left, *drawing):
                task.cancel()
            await asyncio.gather(left, *drawing, return_exceptions=True)
        if self.refusal is not None and not self._drawn:
            raise self.refusal

    async def _some(self, places: Iterator[int]) -> None:
        for place in places:
            try:
                _, content = await self._draw[place]()
            except (InvalidContent, Unsupported) as error:
                self.refusal = self.refusal or error
                continue
            if self.loan.size + len(content) > self._most:
                text = f"Ces images dépassent {self._most} octets par réponse : demandez-en moins à la fois."
                raise InvalidContent("dicom-frames", text, expression="frames")
            self.loan.take(await self._held.lend(len(content)))
            self._drawn[place] = content


async def _left(request: Request) -> None:
    """Wait until whoever asked goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise Unavailable("client-left", "Le demandeur n’attend plus cette réponse.")
