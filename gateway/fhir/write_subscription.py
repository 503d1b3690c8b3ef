"""Subscription: what a client asks to be told of, judged, kept, and begun.

[FHIR R4 subscription; HL7 subscriptions-backport 1.1; spec fhir-fr 1.26, 3.1, 3.8; DECISIONS 16]

A client asks (``requested``) or ends (``off``); only the server says ``active``, once the endpoint has answered, or
``error``. Who sends back what he read asks for nothing new. What is not delivered here (other channels than rest-hook,
searches as criteria, topics that nobody tells of) is kept as ``off`` with that reason in ``error``: nobody waits for
what will not come.

Promises: criteria are a search that is offered here and that the client's token may make, or one of our topics with
searches as filters that the topic offers; an endpoint is one that is reached from here, and carries no password; values
of headers are secrets: they are sealed apart, and never read back. Not promised: what happens then
(`gateway.fhir.telling`, `gateway.fhir.rest_hook`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import func, select, true

from gateway.errors import InvalidContent, Unsupported
from gateway.fhir import subscribers
from gateway.fhir.auth_scopes import require_scope
from gateway.fhir.conditions import pairs_of
from gateway.fhir.document import Tree
from gateway.fhir.notification import XML
from gateway.fhir.reachable import Endpoints, by_mail
from gateway.fhir.reading import READABLE, UNSEARCHED
from gateway.fhir.search import parse
from gateway.fhir.subscribers import Subscribing
from gateway.fhir.topics import TOPICS, Topic, topic_of
from gateway.fhir.translate.elements import extension
from gateway.fhir.write_kept import keep_as_sent
from gateway.fhir.writing import Operation, Writing
from gateway.model.store import utcnow
from gateway.model.subscription import Subscription

__all__ = ["NOT_DELIVERED", "write_subscription"]

NOT_DELIVERED = (
    "Cette passerelle ne délivre pas ces notifications : l’abonnement est gardé, sans effet. Sont délivrés les sujets "
    "publiés (Basic?code=SubscriptionTopic), par « rest-hook »."
)
_OVER = "La fin de cet abonnement est passée."
#: What stands in the place of a header's value.
_MASK = "***"
_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
#: Filters of one subscription: each is a search to be understood.
_FILTERS_MAX = 20
_JSON = "application/fhir+json"
_FHIR = frozenset({_JSON, XML})
#: How long an endpoint may take, and what it has when its client says nothing.
_TIMEOUT_S: Final = range(1, 61)
_TIMEOUT_DEFAULT_S: Final = 30
#: How often at most, and at least, a silent subscription is told that we are here.
_HEARTBEAT_S: Final = range(60, 31 * 86_400 + 1)
#: Ends beyond these are as good as none, or as past.
_FOR_EVER, _LONG_AGO = 9000, datetime(1900, 1, 1, tzinfo=UTC)
_CONTENTS: Final = ("empty", "id-only", "full-resource")
#: Subscriptions of one partner that are in force.
_OF_ONE_PARTNER: Final = 100
#: Headers of one subscription, and characters of one.
_HEADERS_MAX, _HEADER_CHARS = 10, 4096
_HEADER = re.compile(
    r"(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}):[ \t]*(?P<value>[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)"
)
#: Headers that are the request's own [RFC 9110 §7.6.1, §8.6, RFC 9112 §6].
_OWN_HEADERS = frozenset(
    {
        "host",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "proxy-authorization",
        "proxy-connection",
        "accept-encoding",
        "user-agent",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a client asks for that is delivered here; ``lines`` are its headers, in clear."""

    topic: str
    filters: tuple[str, ...]
    endpoint: str
    media: str
    content: str
    heartbeat_s: int | None
    timeout_s: int
    lines: tuple[tuple[str, str], ...]


def write_subscription(writing: Writing, operation: Operation) -> None:
    """Keep a subscription, and begin it.

    Raises
    ------
    InvalidContent
        ``abonnement-statut``, ``abonnement-canal``, ``abonnement-adresse``, ``abonnement-contenu``,
        ``abonnement-entete``, ``abonnement-delai``, ``abonnement-criteres``, ``abonnement-limite`` (rules).
    Forbidden
        ``portee-insuffisante``: the token may not search what it would be told of.
    """
    tree, into = operation.tree, writing.ports.subscribing
    standing = _standing(writing, operation)
    # What stood when this was read may stand no more: whoever sends it back asks for nothing.
    as_read = standing is not None and tree["status"] in {"active", "error"}
    if tree["status"] not in {"requested", "off"} and not as_read:
        text = "Un client demande un abonnement (« requested ») ou y met fin (« off ») ; le reste est au serveur."
        raise InvalidContent("abonnement-statut", text, expression="Subscription.status", rule=True)
    _judge_channel(tree["channel"], into.endpoints if into is not None else _NOWHERE_HERE)
    topic = _topic(tree["criteria"])
    for where, search in _searches(writing, tree, topic):
        _judge_search(writing, search, where, topic)
    wanted = tree["status"] != "off"
    told = topic is not None and topic.happening is not None and tree["channel"]["type"] == "rest-hook"
    if into is not None and topic is not None and told:
        state, error = _begun(writing, into, operation, topic, standing, wanted=wanted)
    else:
        if standing is not None:
            standing.state, standing.active_at = "off", None
        state, error = "off", NOT_DELIVERED if wanted else tree.get("error")
    operation.tree = _kept(tree, state, error)
    keep_as_sent(writing, operation)


def _standing(writing: Writing, operation: Operation) -> Subscription | None:
    """What stands behind the resource; one that was deleted is over: the same id again is another subscription."""
    standing = subscribers.standing(writing.step.session, str(operation.identity))
    if standing is None or (operation.before is not None and not operation.before.deleted):
        return standing
    standing.resource_id = f"{standing.resource_id}|{standing.id}"
    standing.state, standing.active_at = "off", None
    writing.step.session.flush()
    return None


def _kept(tree: Tree, state: str, error: str | None) -> dict[str, Any]:
    channel = dict(tree["channel"])
    if "header" in channel:
        channel["header"] = [_masked(line) if isinstance(line, str) else line for line in channel["header"]]
    return subscribers.said({**tree, "channel": channel}, state, error)


def _masked(line: str) -> str:
    name, colon, _ = line.partition(":")
    return f"{name.strip()}: {_MASK}" if colon else _MASK


# What is delivered


def _begun(
    writing: Writing,
    into: Subscribing,
    operation: Operation,
    topic: Topic,
    standing: Subscription | None,
    *,
    wanted: bool,
) -> tuple[str, str | None]:
    """Keep what delivery needs, ask the endpoint where that is new, and give the state with its error."""
    tree = operation.tree
    asked, ends_at = _asked(tree, topic, into, standing), _end(tree)
    over = ends_at is not None and ends_at <= utcnow()
    if not wanted or over:
        if standing is not None:
            _lay(standing, writing, into, asked, ends_at)
            standing.state, standing.active_at = "off", None
        return "off", _OVER if wanted else tree.get("error")
    new = standing is None or _told_otherwise(standing, into, asked)
    again = standing is None or (tree["status"] == "requested" and standing.state in {"error", "off"})
    if standing is None or standing.state == "off":
        _require_few(writing)
    if standing is None:
        standing = Subscription(resource_id=str(operation.identity), handshakes=0, events=0)
        writing.step.session.add(standing)
    _lay(standing, writing, into, asked, ends_at)
    if new or again:
        subscribers.begin(writing.step, standing, into.base_url)
    return standing.state, tree.get("error") if standing.state == "error" else None


def _require_few(writing: Writing) -> None:
    """Refuse one more than a partner may have: each is asked about each event."""
    live = select(func.count()).where(Subscription.partner_id == writing.partner.id, Subscription.state != "off")
    if (writing.step.session.scalar(live) or 0) >= _OF_ONE_PARTNER:
        text = f"Trop d’abonnements en cours pour un partenaire : limite {_OF_ONE_PARTNER}."
        raise InvalidContent("abonnement-limite", text, expression="Subscription", rule=True)


def _lay(standing: Subscription, writing: Writing, into: Subscribing, asked: _Asked, ends_at: datetime | None) -> None:
    caller = writing.step.caller
    standing.partner_id, standing.client = writing.partner.id, caller.identifier or ""
    standing.scopes = sorted(caller.scopes)
    for name in ("topic", "endpoint", "media", "content", "heartbeat_s", "timeout_s"):
        setattr(standing, name, getattr(asked, name))
    standing.filters = list(asked.filters)
    standing.headers = into.seal.close({"lines": asked.lines}) if asked.lines else None
    standing.ends_at = ends_at


def _told_otherwise(standing: Subscription, into: Subscribing, asked: _Asked) -> bool:
    """Whether another endpoint, or the same one otherwise, is to be told."""
    return (
        _secrets(standing, into) != asked.lines
        or standing.filters != list(asked.filters)
        or any(getattr(standing, one) != getattr(asked, one) for one in ("topic", "endpoint", "media", "content"))
    )


def _secrets(standing: Subscription, into: Subscribing) -> tuple[tuple[str, str], ...]:
    opened = into.seal.open(standing.headers) if standing.headers is not None else None
    return tuple((str(name), str(value)) for name, value in (opened or {}).get("lines", ()))


def _asked(tree: Tree, topic: Topic, into: Subscribing, standing: Subscription | None) -> _Asked:
    channel = tree["channel"]
    shown = extension(channel.get("_payload") or {}, f"{_BACKPORT}/backport-payload-content")
    content = str(next((one.get("valueCode") for one in shown), "id-only"))
    if content not in _CONTENTS:
        text = f"Contenu non offert ; les contenus sont : {', '.join(_CONTENTS)}."
        raise InvalidContent("abonnement-contenu", text, expression="Subscription.channel.payload", rule=True)
    return _Asked(
        topic=topic.url,
        filters=tuple(_filters(tree)),
        endpoint=channel["endpoint"],
        media=str(channel.get("payload", _JSON)).partition(";")[0].strip(),
        content=content,
        heartbeat_s=_number(channel, "backport-heartbeat-period", _HEARTBEAT_S, None),
        timeout_s=_number(channel, "backport-timeout", _TIMEOUT_S, _TIMEOUT_DEFAULT_S) or _TIMEOUT_DEFAULT_S,
        lines=_lines(channel, into, standing),
    )


def _number(channel: Tree, name: str, allowed: range, default: int | None) -> int | None:
    said = next((one.get("valueUnsignedInt") for one in extension(channel, f"{_BACKPORT}/{name}")), None)
    if said is None or said == 0:
        return default
    if said not in allowed:
        text = f"« {name} » : {allowed.start} à {allowed.stop - 1} secondes."
        raise InvalidContent("abonnement-delai", text, expression="Subscription.channel.extension", rule=True)
    return int(said)


def _lines(channel: Tree, into: Subscribing, standing: Subscription | None) -> tuple[tuple[str, str], ...]:
    """Headers in clear; what comes back as it was shown is what is sealed already, for the same address."""
    said = channel.get("header", ())
    known: dict[str, list[str]] = {}
    if standing is not None and standing.endpoint == channel["endpoint"]:
        for name, value in _secrets(standing, into):
            known.setdefault(name.lower(), []).append(value)
    found = []
    for line in said:
        match = _HEADER.fullmatch(line) if isinstance(line, str) and len(line) <= _HEADER_CHARS else None
        name, value = (match["name"], match["value"]) if match is not None else ("", "")
        if value == _MASK:
            value = next(iter(known.get(name.lower(), ())), "")
            known.get(name.lower(), [])[:1] = []
        if len(said) > _HEADERS_MAX or not value or name.lower() in _OWN_HEADERS:
            text = (
                f"En-tête refusé : « Nom: valeur » en ASCII, {_HEADERS_MAX} au plus, de {_HEADER_CHARS} caractères, "
                "autre que ceux de la requête elle-même ; une valeur masquée n’est reprise que pour la même adresse."
            )
            raise InvalidContent("abonnement-entete", text, expression="Subscription.channel.header", rule=True)
        found.append((name, value))
    return tuple(found)


def _end(tree: Tree) -> datetime | None:
    """When it ends; nothing for an end that no database holds, which is never."""
    said = tree.get("end")
    if said is None:
        return None
    try:
        end = datetime.fromisoformat(str(said))
    except ValueError as error:  # a leap second
        text = "Fin illisible : un instant est attendu."
        raise InvalidContent("valeur-invalide", text, expression="Subscription.end") from error
    return None if end.year >= _FOR_EVER else max(end, _LONG_AGO)


# The channel


def _judge_channel(channel: Tree, endpoints: Endpoints) -> None:
    offered = _CHANNELS.get(channel["type"])
    if offered is None:
        names = ", ".join(f"« {name} »" for name in _CHANNELS)
        text = f"Canal non offert ; les canaux sont : {names}."
        raise InvalidContent("abonnement-canal", text, expression="Subscription.channel.type", rule=True)
    reached, payloads = offered
    if not reached(endpoints, str(channel.get("endpoint", ""))):
        text = (
            "Adresse refusée : une adresse https publique pour « rest-hook », mailto pour « email » ; "
            "sans mot de passe, ni adresse interne."
        )
        raise InvalidContent("abonnement-adresse", text, expression="Subscription.channel.endpoint", rule=True)
    payload = channel.get("payload")
    if payload is not None and str(payload).partition(";")[0].strip() not in payloads:
        text = f"Contenu non offert ; les contenus sont : {', '.join(sorted(payloads))}."
        raise InvalidContent("abonnement-contenu", text, expression="Subscription.channel.payload", rule=True)


#: Where nothing is delivered, what could be reached in production.
_NOWHERE_HERE = Endpoints()
#: Channel → whether an endpoint can be reached by it, and what it may carry.
_CHANNELS: Mapping[str, tuple[Callable[[Endpoints, str], bool], frozenset[str]]] = {
    "rest-hook": (Endpoints.takes, _FHIR),
    "email": (lambda _, endpoint: by_mail(endpoint), _FHIR | {"text/plain"}),
}

# The criteria


def _topic(criteria: str) -> Topic | None:
    """The topic that criteria name; `None` for a search."""
    if "://" not in criteria.partition("?")[0]:
        return None
    found = topic_of(criteria)
    if found is None:
        names = ", ".join(name.rpartition("/")[2] for name in TOPICS)
        text = f"Sujet inconnu ; les sujets sont : {names}."
        raise InvalidContent("abonnement-criteres", text, expression="Subscription.criteria", rule=True)
    return found


def _filters(tree: Tree) -> list[str]:
    said = extension(tree.get("_criteria") or {}, f"{_BACKPORT}/backport-filter-criteria")
    return [str(one.get("valueString", "")) for one in said]


def _searches(writing: Writing, tree: Tree, topic: Topic | None) -> Iterator[tuple[str, str]]:
    """Yield where each search stands, and the search; the type of a topic may be read."""
    if topic is None:
        yield "criteria", tree["criteria"]
        return
    require_scope(writing.step.caller, topic.kind, "r")
    filters = _filters(tree)
    if len(filters) > _FILTERS_MAX:
        text = f"Trop de filtres pour un abonnement : {len(filters)}, limite {_FILTERS_MAX}."
        raise InvalidContent("abonnement-criteres", text, expression="Subscription.criteria", rule=True)
    for one in filters:
        yield "criteria.extension", one


def _judge_search(writing: Writing, search: str, where: str, topic: Topic | None) -> None:
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
    if topic is None or topic.happening is None:
        return
    asked = {re.split("[:.]", name, maxsplit=1)[0] for name, _ in pairs}
    if kind != topic.kind or not asked or not asked <= set(topic.filters) or any("_has" in name for name, _ in pairs):
        text = f"Filtre non offert pour ce sujet ; une recherche {topic.kind} par : {', '.join(topic.filters)}."
        raise InvalidContent("abonnement-criteres", text, expression=f"Subscription.{where}", rule=True)
