"""The CapabilityStatement, made from what is registered so that it never lies.

[FHIR R4 capabilitystatement, http#capabilities]

What is offered is read from the routes themselves (`ROUTES` says which interaction each method and address carries
out), narrowed for each type by the tables that the routes obey: who may write it, what may be deleted, what is searched
and by which parameters.

Promises: two processes of one version say the same bytes; a route without a line in `ROUTES` is refused at start.
Not promised: profiles; which scopes a client has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gateway.errors import Fault
from gateway.fhir import audit_search, search_columns
from gateway.fhir.document import encode
from gateway.fhir.negotiation import FORMATS
from gateway.fhir.reading import READABLE, UNSEARCHED
from gateway.fhir.routes_write import CONDITIONAL, PATCH_FORMATS, SYSTEM_INTERACTIONS, interactions
from gateway.fhir.search import CONTROLS
from gateway.fhir.search_conditions import MODIFIERS, PREFIXES
from gateway.fhir.search_kinds import points_to
from gateway.fhir.topics import TOLD

__all__ = ["ROUTES", "Offer", "Statement", "offers"]

#: Day of the last change of what is offered; a client compares it with the one that it kept. A test holds it against
#: the digest of the offer.
_DATE = "2026-11-21"

#: Method and address of each route → what it carries out: the code of an interaction on a type, of one on the system
#: (`SYSTEM`), a member of ``rest.resource`` (`MEMBER`), one on the trail alone (`TRAIL`), an operation (``$…``, or
#: ``Type:$…`` of one type alone), nothing that a statement says, or a refusal (`REFUSED`).
SYSTEM, MEMBER, TRAIL, REFUSED = "system:", "member:", "AuditEvent:", "refused:"
ROUTES: Mapping[tuple[str, str], str] = {
    ("GET", "/fhir/{kind}/{identity}"): "read",
    ("GET", "/fhir/{kind}/{identity}/_history/{version}"): "vread",
    ("PUT", "/fhir/{kind}/{identity}"): "update",
    ("PATCH", "/fhir/{kind}/{identity}"): "patch",
    ("DELETE", "/fhir/{kind}/{identity}"): "delete",
    ("GET", "/fhir/{kind}/{identity}/_history"): "history-instance",
    ("GET", "/fhir/{kind}/_history"): "history-type",
    ("POST", "/fhir/{kind}"): "create",
    ("GET", "/fhir/{kind}"): "search-type",
    ("POST", "/fhir/{kind}/_search"): "search-type",
    ("PUT", "/fhir/{kind}"): MEMBER + "conditionalUpdate",
    ("PATCH", "/fhir/{kind}"): "patch",
    ("DELETE", "/fhir/{kind}"): MEMBER + "conditionalDelete",
    ("POST", "/fhir/{kind}/$validate"): "$validate",
    ("POST", "/fhir/{kind}/{identity}/$validate"): "$validate",
    ("GET", "/fhir/Composition/{identity}/$document"): "Composition:$document",
    **{(method, "/fhir/Subscription/{identity}/$status"): "Subscription:$status" for method in ("GET", "POST")},
    **{(method, "/fhir/Subscription/{identity}/$events"): "Subscription:$events" for method in ("GET", "POST")},
    ("GET", "/fhir/AuditEvent/{identity}"): TRAIL + "read",
    ("GET", "/fhir/AuditEvent"): TRAIL + "search-type",
    ("POST", "/fhir/AuditEvent/_search"): TRAIL + "search-type",
    **{(method, "/fhir/AuditEvent"): REFUSED for method in ("POST", "PUT", "PATCH", "DELETE")},
    **{(method, "/fhir/AuditEvent/{identity}"): REFUSED for method in ("PUT", "PATCH", "DELETE")},
    ("POST", "/fhir"): SYSTEM + "transaction",
    ("POST", "/fhir/"): SYSTEM + "transaction",
    ("GET", "/fhir/metadata"): "",
    ("GET", "/fhir/.well-known/smart-configuration"): "",
}
_OPERATIONS: Mapping[str, str] = {
    "$validate": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    "$document": "http://hl7.org/fhir/OperationDefinition/Composition-document",
    "$status": "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-status",
    "$events": "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-events",
}
#: The order in which R4 lists interactions [FHIR R4 valueset-type-restful-interaction].
_ORDER = (
    "read",
    "vread",
    "update",
    "patch",
    "delete",
    "history-instance",
    "history-type",
    "create",
    "search-type",
)
_LETTERS: Mapping[str, frozenset[str]] = {
    "c": frozenset({"create"}),
    "r": frozenset({"read"}),
    "u": frozenset({"update"}),
    "d": frozenset({"delete"}),
    "s": frozenset({"search-type"}),
}
_READS = frozenset({"read", "vread", "history-instance", "history-type"})


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered of one type.

    Attributes
    ----------
    interactions
        Codes in R4's order.
    members
        Members of ``rest.resource`` that say which conditional interactions there are.
    operations
        Names, with their dollar sign.
    """

    kind: str
    interactions: tuple[str, ...]
    members: Mapping[str, Any]
    operations: tuple[str, ...]

    @property
    def letters(self) -> str:
        """The letters of a SMART scope that says as much [SMART App Launch 2.2: scopes-and-launch-context]."""
        return "".join(letter for letter, codes in _LETTERS.items() if codes & set(self.interactions))

    @property
    def searched(self) -> bool:
        """Whether it can be searched."""
        return "search-type" in self.interactions


def offers(routes: Iterable[tuple[str, str]]) -> tuple[Offer, ...]:
    """Say what routes offer of each type.

    Parameters
    ----------
    routes
        Method and address of each route below ``/fhir``; what HEAD answers is what GET does.

    Raises
    ------
    Fault
        ``route-inconnue``: a route that the statement would not tell of.
    """
    done: set[str] = set()
    for method, path in routes:
        if method != "HEAD":
            if (method, path) not in ROUTES:
                raise Fault("route-inconnue", f"Route sans déclaration de capacité : {method} {path}.")
            done.add(ROUTES[method, path])
    trail = tuple(code for code in _ORDER if TRAIL + code in done)
    return (*(_offer(kind, done) for kind in READABLE), *((Offer(_TRAIL, trail, {}, ()),) if trail else ()))


def _offer(kind: str, done: set[str]) -> Offer:
    written = interactions(kind)
    possible = {*written, *_READS, *(() if kind in UNSEARCHED else ("search-type",))}
    conditional = {} if kind in UNSEARCHED else CONDITIONAL
    members = {
        name: value
        for name, value in conditional.items()
        if name.removeprefix("conditional").lower() in written
        and ("create" if name == "conditionalCreate" else MEMBER + name) in done
    }
    return Offer(
        kind,
        tuple(code for code in _ORDER if code in done and code in possible),
        members,
        tuple(name for name in _OPERATIONS if {name, f"{kind}:{name}"} & done),
    )


class Statement:
    """The statement of one deployment.

    Parameters
    ----------
    update_create
        Whether a PUT to an id that nobody used creates.

    Attributes
    ----------
    body
        Its bytes.
    etag
        Of these bytes: another statement has another.
    """

    def __init__(
        self,
        routes: Iterable[tuple[str, str]],
        *,
        base_url: str,
        token_url: str,
        smart: Sequence[str],
        update_create: bool,
    ) -> None:
        self.offers = offers(routes)
        self.body = encode(
            {
                "resourceType": "CapabilityStatement",
                "url": f"{base_url}/metadata",
                "version": _software(),
                "name": "PasserelleRCP",
                "title": "Passerelle d’interopérabilité des RCP",
                "status": "active",
                "date": _DATE,
                "publisher": "rcp-gateway",
                "description": _DESCRIPTION,
                "kind": "instance",
                "software": {"name": "rcp-gateway", "version": _software()},
                "implementation": {"description": "Passerelle RCP", "url": base_url},
                "fhirVersion": "4.0.1",
                "format": [name for names in FORMATS.values() for name in names],
                "patchFormat": list(PATCH_FORMATS),
                "rest": [
                    {
                        "mode": "server",
                        "documentation": _SEARCHING,
                        "security": _security(token_url, smart),
                        "resource": [_resource(offer, update_create=update_create) for offer in self.offers],
                        "interaction": [{"code": code} for code in SYSTEM_INTERACTIONS],
                    }
                ],
            }
        )
        self.etag = f'W/"{sha256(self.body).hexdigest()[:16]}"'


_DESCRIPTION = (
    "Réunions de concertation pluridisciplinaire : inscriptions, dossiers, séances, contributions et comptes rendus. "
    "Ce qu’un client envoie revient à l’identique ; chaque ressource a un seul propriétaire, qui seul l’écrit."
)
_SEARCHING = (
    f"Préfixes des dates, nombres et quantités : {', '.join(PREFIXES)}. "
    f"Paramètres de réponse : {', '.join(sorted(CONTROLS))}. "
    "Enchaînements (« patient.identifier », « _has ») sur chaque paramètre de référence. Un paramètre inconnu est "
    "signalé, ou refusé avec « Prefer: handling=strict »."
)


def _software() -> str:
    try:
        return version("rcp-gateway")
    except PackageNotFoundError:
        return "0"


def _security(token_url: str, smart: Sequence[str]) -> dict[str, Any]:
    registry = "http://fhir-registry.smarthealthit.org/StructureDefinition"
    return {
        "extension": [
            {"url": f"{registry}/oauth-uris", "extension": [{"url": "token", "valueUri": token_url}]},
            *({"url": f"{registry}/capabilities", "valueCode": code} for code in smart),
        ],
        "cors": False,
        "service": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
                        "code": "SMART-on-FHIR",
                    }
                ]
            }
        ],
        "description": "SMART backend services : client_credentials avec private_key_jwt.",
    }


def _resource(offer: Offer, *, update_create: bool) -> dict[str, Any]:
    kind = offer.kind
    said: dict[str, Any] = {
        "type": kind,
        "profile": f"http://hl7.org/fhir/StructureDefinition/{kind}",
        "interaction": [{"code": code} for code in offer.interactions],
        "versioning": _versioning(offer),
        "readHistory": "vread" in offer.interactions,
        # What is never deleted lives with the dossier that it shows, under the dossier's id.
        "updateCreate": update_create and {"update", "delete"} <= set(offer.interactions),
        "conditionalRead": "full-support" if kind != _TRAIL else None,
        **offer.members,
    }
    if kind == _TRAIL:
        said["documentation"] = _READING_TRAIL
        said["searchParam"] = [{"name": name, "type": type_} for name, type_ in audit_search.PARAMETERS.items()]
    elif offer.searched:
        said["searchInclude"] = [f"{kind}:{code}" for code in _references(kind)]
        said["searchRevInclude"] = list(_referring(kind))
        said["searchParam"] = [_parameter(one) for one in _COMMON] + [
            _parameter((one.code, one.kind, one.url)) for one in search_columns.parameters(kind).values()
        ]
    if kind == "Subscription":
        said["extension"] = [{"url": f"{_BACKPORT}/{_TOPIC}", "valueCanonical": topic.url} for topic in TOLD]
        said["supportedProfile"] = [f"{_BACKPORT}/backport-subscription"]
        said["documentation"] = _SUBSCRIBING
    if offer.operations:
        said["operation"] = [{"name": name[1:], "definition": _OPERATIONS[name]} for name in offer.operations]
    return {name: value for name, value in said.items() if value not in ([], None)}


_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
_TOPIC = "capabilitystatement-subscriptiontopic-canonical"
_SUBSCRIBING = (
    "Sont délivrés les sujets publiés (« Basic?code=SubscriptionTopic »), par « rest-hook », contenu « empty », "
    "« id-only » ou « full-resource » ; tout autre abonnement est gardé, « off », avec sa raison."
)
_TRAIL = TRAIL.rstrip(":")
_READING_TRAIL = (
    "La trace des accès aux patients de l’organisation qui la lit ; une recherche porte une borne de date (« date » ou "
    "« _lastUpdated »), et sa lecture est elle-même tracée."
)


def _versioning(offer: Offer) -> str:
    if "vread" not in offer.interactions:
        return "no-version"
    return "versioned-update" if "update" in offer.interactions else "versioned"


#: Parameters that have no line in the table, because they are columns that every table has.
_COMMON = (
    ("_id", "token", "http://hl7.org/fhir/SearchParameter/Resource-id"),
    ("_lastUpdated", "date", "http://hl7.org/fhir/SearchParameter/Resource-lastUpdated"),
)


def _parameter(said: tuple[str, str, str]) -> dict[str, Any]:
    code, kind, url = said
    found: dict[str, Any] = {"name": code, "type": kind}
    if url:
        found["definition"] = url
    modifiers = () if said in _COMMON else MODIFIERS.get(kind, ())
    if modifiers:
        found["documentation"] = "Modificateurs : " + ", ".join(f":{one}" for one in modifiers) + "."
    return found


@cache
def _references(kind: str) -> tuple[str, ...]:
    """``_include`` values: the reference parameters that may lead to a type that is kept."""
    return tuple(
        one.code
        for one in search_columns.parameters(kind).values()
        if one.kind == "reference" and any(points_to(one, target) for target in READABLE)
    )


@cache
def _referring(kind: str) -> tuple[str, ...]:
    """``_revinclude`` values: the reference parameters that may lead to a type."""
    return tuple(
        f"{source}:{one.code}"
        for source in READABLE
        for one in search_columns.parameters(source).values()
        if one.kind == "reference" and points_to(one, kind)
    )
