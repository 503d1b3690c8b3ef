"""Which methods an address of the wire answers to, read from the routes and the tables that they obey.

[RFC 9110 §9.3.7, §10.2.1, §15.5.6; FHIR R4 http#summary]

What a 405 lists in ``Allow`` and what OPTIONS tells is what the CapabilityStatement says (`gateway.fhir.capability`),
address by address. Promises: a method that is listed is answered by a route that does more than refuse it; an address
at which nothing is offered, such as those of a type that is not, has none (404).
Not promised: that the caller may, or that there is such a resource.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.fhir.capability import MEMBER, REFUSED, ROUTES, TRAIL, Offer
from gateway.fhir.routing import Router
from gateway.web.allowed import METHODS

__all__ = ["Addresses"]

#: What a method does to a type alone needs a condition in the query.
_CONDITIONAL = frozenset({"PUT", "PATCH", "DELETE"})


class Addresses:
    """The addresses of one wire.

    Parameters
    ----------
    router
        Its routes.
    offers
        What they offer of each type.
    """

    def __init__(self, router: Router, offers: Iterable[Offer]) -> None:
        self._router = router
        self._offers = {offer.kind: offer for offer in offers}

    def methods(self, path: str, *, condition: bool) -> tuple[str, ...]:
        """Methods that do something at a path.

        Parameters
        ----------
        condition
            Whether the query holds one, without which nothing is done to a whole type.
        """
        found = {method for method in METHODS if self._answers(method, path, condition=condition)}
        if found:
            found |= {"OPTIONS", "HEAD"} if "GET" in found else {"OPTIONS"}
        return tuple(method for method in METHODS if method in found)

    def _answers(self, method: str, path: str, *, condition: bool) -> bool:
        found = self._router.found(method, path)
        if found is None:
            return False
        route, parameters = found
        code = ROUTES.get((method, route.path), REFUSED if route.path.startswith("/fhir") else "")
        if code == REFUSED:
            return False
        kind = TRAIL.rstrip(":") if code.startswith(TRAIL) else parameters.get("kind")
        if kind is None:  # of the system
            return True
        offer = self._offers.get(kind)
        if offer is None or (
            method in _CONDITIONAL and "identity" not in parameters and not (condition and offer.searched)
        ):
            return False
        return code.removeprefix(TRAIL).removeprefix(MEMBER) in {*offer.interactions, *offer.members, *offer.operations}
