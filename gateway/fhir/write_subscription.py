"""Subscription: what a client asks to be told of, judged and kept; nothing is delivered yet, and it says so.

[FHIR R4 subscription; spec fhir-fr 1.26, 3.1, 3.8; DECISIONS 16]

A client asks (``requested``) or ends (``off``); only a server that delivers says ``active``. As long as this one does
not, what is asked for is kept as ``off`` with that reason in ``error``: nobody waits for what will not come.

Promises: criteria are a search that is offered here and that the client's token may make, or one of our topics with
such searches as filters; an endpoint is reached by https, outside, and carries no password; values of headers are
secrets: they are not kept, and so never read back. Not promised: deliveries, ``$status``, ``$events``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import true

from gateway.errors import InvalidContent, Unsupported
from gateway.fhir.auth_scopes import require_scope
from gateway.fhir.conditions import pairs_of
from gateway.fhir.document import Tree
from gateway.fhir.reading import READABLE, UNSEARCHED
from gateway.fhir.search import parse
from gateway.fhir.translate.elements import CANONICAL, extension
from gateway.fhir.write_kept import keep_as_sent
from gateway.fhir.writing import Operation, Writing

__all__ = ["NOT_DELIVERED", "write_subscription"]

NOT_DELIVERED = "Cette passerelle ne délivre pas encore de notifications : l’abonnement est gardé, sans effet."
#: What stands in the place of a header's value.
_MASK = "***"
_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
#: Topic → type that it tells of [spec fhir-fr 4.3].
_TOPICS: Mapping[str, str] = {
    f"{CANONICAL}/SubscriptionTopic/rcp-dossier": "Task",
    f"{CANONICAL}/SubscriptionTopic/rcp-session": "Appointment",
    f"{CANONICAL}/SubscriptionTopic/rcp-document": "DocumentReference",
    f"{CANONICAL}/SubscriptionTopic/rcp-imagerie": "ImagingStudy",
}
#: Filters of one subscription: each is a search to be understood.
_FILTERS_MAX = 20
_FHIR = frozenset({"application/fhir+json", "application/fhir+xml"})
_MAILBOX = re.compile(r"mailto:[^@\s?&/]{1,64}@(?P<host>[^@\s?&/]{3,253})")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]")
#: Ends of names that lead nowhere but inside [RFC 6761, RFC 6762, RFC 8375, RFC 9476].
_INSIDE = (".local", ".localhost", ".internal", ".home.arpa", ".lan", ".alt")


def write_subscription(writing: Writing, operation: Operation) -> None:
    """Keep a subscription.

    Raises
    ------
    InvalidContent
        ``abonnement-statut``, ``abonnement-canal``, ``abonnement-adresse``, ``abonnement-contenu``,
        ``abonnement-criteres`` (rules).
    Forbidden
        ``portee-insuffisante``: the token may not search what it would be told of.
    """
    tree = operation.tree
    if tree["status"] not in {"requested", "off"}:
        text = "Un client demande un abonnement (« requested ») ou y met fin (« off ») ; le reste est au serveur."
        raise InvalidContent("abonnement-statut", text, expression="Subscription.status", rule=True)
    _judge_channel(tree["channel"])
    for where, search in _searches(writing, tree):
        _judge_search(writing, search, where)
    operation.tree = _kept(tree)
    keep_as_sent(writing, operation)


def _kept(tree: Tree) -> dict[str, Any]:
    channel = dict(tree["channel"])
    if "header" in channel:
        channel["header"] = [_masked(line) if isinstance(line, str) else line for line in channel["header"]]
    told = {"status": "off", "error": NOT_DELIVERED} if tree["status"] == "requested" else {}
    return {**tree, "channel": channel, **told}


def _masked(line: str) -> str:
    name, colon, _ = line.partition(":")
    return f"{name.strip()}: {_MASK}" if colon else _MASK


# The channel


def _judge_channel(channel: Tree) -> None:
    offered = _CHANNELS.get(channel["type"])
    if offered is None:
        names = ", ".join(f"« {name} »" for name in _CHANNELS)
        text = f"Canal non offert ; les canaux sont : {names}."
        raise InvalidContent("abonnement-canal", text, expression="Subscription.channel.type", rule=True)
    reached, payloads = offered
    if not reached(str(channel.get("endpoint", ""))):
        text = (
            "Adresse refusée : une adresse https publique pour « rest-hook », mailto pour « email » ; "
            "sans mot de passe, ni adresse interne."
        )
        raise InvalidContent("abonnement-adresse", text, expression="Subscription.channel.endpoint", rule=True)
    payload = channel.get("payload")
    if payload is not None and str(payload).partition(";")[0].strip() not in payloads:
        text = f"Contenu non offert ; les contenus sont : {', '.join(sorted(payloads))}."
        raise InvalidContent("abonnement-contenu", text, expression="Subscription.channel.payload", rule=True)


def _by_https(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    bare = parts.username is None and parts.password is None and not parts.fragment
    return parts.scheme == "https" and bare and port != 0 and _outside(host) and endpoint.isprintable()


def _by_mail(endpoint: str) -> bool:
    found = _MAILBOX.fullmatch(endpoint)
    return found is not None and _outside(found["host"].lower())


def _outside(host: str) -> bool:
    """Whether a host may stand outside: a public address, or a whole name that no resolver keeps inside."""
    try:
        return ip_address(host).is_global
    except ValueError:
        return _HOST.fullmatch(host) is not None and not host.endswith(_INSIDE)


#: Channel → whether an endpoint can be reached by it, and what it may carry.
_CHANNELS: Mapping[str, tuple[Callable[[str], bool], frozenset[str]]] = {
    "rest-hook": (_by_https, _FHIR),
    "email": (_by_mail, _FHIR | {"text/plain"}),
}

# The criteria


def _searches(writing: Writing, tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield where each search stands, and the search; a topic is known, and its type may be read."""
    criteria = tree["criteria"]
    if "://" not in criteria.partition("?")[0]:
        yield "criteria", criteria
        return
    kind = _TOPICS.get(criteria.partition("|")[0])
    if kind is None:
        names = ", ".join(name.rpartition("/")[2] for name in _TOPICS)
        text = f"Sujet inconnu ; les sujets sont : {names}."
        raise InvalidContent("abonnement-criteres", text, expression="Subscription.criteria", rule=True)
    require_scope(writing.step.caller, kind, "r")
    filters = list(extension(tree.get("_criteria") or {}, f"{_BACKPORT}/backport-filter-criteria"))
    if len(filters) > _FILTERS_MAX:
        text = f"Trop de filtres pour un abonnement : {len(filters)}, limite {_FILTERS_MAX}."
        raise InvalidContent("abonnement-criteres", text, expression="Subscription.criteria", rule=True)
    for one in filters:
        yield "criteria.extension", str(one.get("valueString", ""))


def _judge_search(writing: Writing, search: str, where: str) -> None:
    kind, mark, query = search.partition("?")
    if kind not in READABLE or kind in UNSEARCHED:
        text = "Critères non offerts : une recherche sur un type de la passerelle est attendue."
        raise InvalidContent("abonnement-criteres", text, expression=f"Subscription.{where}", rule=True)
    require_scope(writing.step.caller, kind, "s")
    try:
        pairs = pairs_of(query) if mark else []
        parse(
            kind,
            pairs,
            visible=lambda _kind, _table: true(),
            strict=True,
            limits=writing.limits,
            base=writing.base_url,
        )
    except (InvalidContent, Unsupported) as error:
        text = f"Critères non offerts. {error.text}"
        raise InvalidContent("abonnement-criteres", text, expression=f"Subscription.{where}", rule=True) from error
