"""What a browser can show of an object: pictures and thumbnails `[PS3.18 10.4.1.1.5, 10.4.1.1.6]`.

Promises: what `gateway.dicom.asking` does; pictures in JPEG, PNG or GIF.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from fastapi import APIRouter, Request, Response

from gateway.dicom.asking import Who, Wire, frame_numbers, negotiate, records
from gateway.dicom.query import Found
from gateway.dicom.render import MEDIA_TYPES, Region, Window, render
from gateway.errors import InvalidContent, Unsupported
from gateway.rcp.access import Caller

__all__ = ["Rendering"]

_THUMBNAIL: Final = Region(160, 160)
_MAX_VIEWPORT: Final = 4096
_NUMBER: Final = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,6})?")


class Rendering(Wire):
    """``/rendered`` and ``/thumbnail``."""

    def add_to(self, routes: APIRouter) -> None:
        """Add the routes."""
        add = partial(routes.add_api_route, methods=["GET"], response_class=Response, response_model=None)
        one = "/studies/{study}/series/{series}/instances/{instance}"
        for path in ("/studies/{study}", "/studies/{study}/series/{series}", one):
            add(f"{path}/thumbnail", self.thumbnail)
        add(f"{one}/rendered", self.rendered)
        add(f"{one}/frames/{{frames}}/rendered", self.rendered)

    async def rendered(
        self, request: Request, who: Who, study: str, series: str, instance: str, frames: str = "1"
    ) -> Response:
        """Draw one frame of an instance."""
        [one, *_] = await self._found(who, study, series, instance)
        numbers = frame_numbers(frames)
        if len(numbers) != 1:
            raise Unsupported("not-acceptable", "Une seule image par réponse.", expression="frames")
        return await self._picture(request, who, one, numbers[0], _viewport(request.query_params.get("viewport")))

    async def thumbnail(
        self, request: Request, who: Who, study: str, series: str | None = None, instance: str | None = None
    ) -> Response:
        """Draw the one in the middle, small."""
        found = await self._found(who, study, series, instance)
        pictured = [one for one in found if one.pictured]
        if not pictured:
            raise Unsupported("dicom-no-pixels", "Aucune image dans ces objets.")
        asked = _viewport(request.query_params.get("viewport"))
        return await self._picture(request, who, pictured[len(pictured) // 2], 1, asked or _THUMBNAIL)

    async def _picture(
        self, request: Request, who: Caller, one: Found, frame: int, viewport: Region | None
    ) -> Response:
        media_type = negotiate(request, tuple(MEDIA_TYPES))
        window = request.query_params.get("window")
        draw = partial(
            render,
            frame=frame,
            media_type=media_type,
            window=Window.parse(window) if window else None,
            viewport=viewport,
        )
        content = await self.on_file(one, draw)
        await self._tell(who, records([one]), "Rendered", one.instance_uid)
        return Response(content, media_type=media_type, headers={"Cache-Control": "private, no-store"})


def _viewport(text: str | None) -> Region | None:
    """Read ``viewport={vw},{vh}`` and the region that may follow `[PS3.18 8.3.5.1.3]`."""
    if text is None:
        return None
    numbers = text.split(",")
    if not all(_NUMBER.fullmatch(one) for one in numbers) or len(numbers) not in (2, 6):
        numbers = ["0", "0"]
    width, height = (float(one) for one in numbers[:2])
    source = tuple(float(one) for one in numbers[2:])
    if not 0 < width <= _MAX_VIEWPORT or not 0 < height <= _MAX_VIEWPORT or (source and not source[2] * source[3]):
        text = f"Paramètre « viewport » invalide : largeur,hauteur (1 à {_MAX_VIEWPORT}), puis x,y,largeur,hauteur."
        raise InvalidContent("dicom-viewport", text, expression="viewport")
    return Region(max(1, int(width)), max(1, int(height)), source or None)  # type: ignore[arg-type]
