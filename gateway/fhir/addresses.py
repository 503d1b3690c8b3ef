"""Which methods an address of the wire answers to, read from the routes and the tables that they obey.

[RFC 9110 §9.3.7, §10.2.1, §15.5.6; FHIR R4 http#summary]

What a 405 lists in ``Allow`` and what OPTIONS tells is what the CapabilityStatement says (`gateway.fhir.capability`),
address by address. Promises: a method that is listed is answered by a route that does more than refuse it; an address
at which nothing is offered, such as those of a type that is not, has none (404).
Not promised: that the caller may, or that there is such a resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import Match

from gateway.fhir.capability import MEMBER, REFUSED, ROUTES, TRAIL, Offer
from gateway.web.allowed import METHODS

__all__ = ["Addresses", "is_name"]

#: What a method does to a type alone needs a condition in the query.
_CONDITIONAL = frozenset({"PUT", "PATCH", "DELETE"})


def is_name(parameters: Mapping[str, Any]) -> bool:
    """Whether parts of a path may be a type and an id: ``_history``, ``$validate`` and ``metadata`` are none.

    No id begins with ``_`` or ``$``, and every type with a capital letter [FHIR R4 http#general].
    """
    kind, identity = parameters.get("kind", "A"), parameters.get("identity", "a")
    return "A" <= kind[:1] <= "Z" and identity[:1] not in "_$"


class Addresses:
    """The addresses of one wire.

    Parameters
    ----------
    routes
        Every route that does something.
    offers
        What they offer of each type.
    """

    def __init__(self, routes: Sequence[APIRoute], offers: Iterable[Offer]) -> None:
        self._routes = routes
        self._offers = {offer.kind: offer for offer in offers}

    def methods(self, path: str, *, condition: bool) -> tuple[str, ...]:
        """Methods that do something at a path.

        Parameters
        ----------
        condition
            Whether the query holds one, without which nothing is done to a whole type.
        """
        found = {
            method
            for route in self._routes
            for method in route.methods or ()
            if self._answers(route, method, path, condition=condition)
        }
        if found:
            found |= {"OPTIONS", "HEAD"} if "GET" in found else {"OPTIONS"}
        return tuple(method for method in METHODS if method in found)

    def _answers(self, route: APIRoute, method: str, path: str, *, condition: bool) -> bool:
        match, child = route.matches({"type": "http", "method": method, "path": path, "root_path": ""})
        code = ROUTES.get((method, route.path), REFUSED)
        if match is not Match.FULL or code == REFUSED:
            return False
        parameters = child["path_params"]
        kind = TRAIL.rstrip(":") if code.startswith(TRAIL) else parameters.get("kind")
        if kind is None:  # of the system
            return True
        offer = self._offers.get(kind)
        if offer is None or (
            method in _CONDITIONAL and "identity" not in parameters and not (condition and offer.searched)
        ):
            return False
        return code.removeprefix(TRAIL).removeprefix(MEMBER) in {*offer.interactions, *offer.members, *offer.operations}
