"""The topics that a Subscription may name: one line each, and the Basic that publishes those that are told of.

[HL7 subscriptions-backport 1.1; spec fhir-fr 0.4, 1.26, 4.3]

Promises: a topic says what its events are about and by which search parameters they may be narrowed; what nobody tells
of here is known by name and not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.fhir.keeping import Owner, keep
from gateway.fhir.translate.elements import CANONICAL
from gateway.rcp import happenings
from gateway.rcp.step import Step

__all__ = ["TOLD", "TOPICS", "Topic", "publish", "topic_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic.

    Parameters
    ----------
    code
        Last part of its canonical; also the id of the Basic that publishes it.
    kind
        Type of what its events are about.
    happening
        What its events tell of (`gateway.rcp.happenings`); `None` where nothing is told yet.
    interactions
        How the resource changes: ``create``, ``update``.
    filters
        Search parameters that may narrow it; of a reference, chains too.
    """

    code: str
    kind: str
    title: str
    description: str
    happening: str | None = None
    interactions: tuple[str, ...] = ("create", "update")
    criteria: str | None = None
    filters: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Its canonical."""
        return f"{CANONICAL}/SubscriptionTopic/{self.code}"


_ALL = (
    Topic(
        code="rcp-dossier",
        kind="Task",
        title="Changement d’état d’un dossier de RCP",
        description="Création ou changement de status ou de businessStatus d’un Task de dossier RCP",
    ),
    Topic(
        code="rcp-session",
        kind="Appointment",
        title="Séance de RCP",
        description="Création ou changement d’une séance",
    ),
    Topic(
        code="rcp-document",
        kind="DocumentReference",
        title="Document de RCP",
        description="Publication ou remplacement d’un compte rendu",
    ),
    Topic(
        code="rcp-imagerie",
        kind="ImagingStudy",
        title="Étude d’imagerie complète",
        description="Plus aucune image n’arrive pour une étude rattachée à son patient ; celle qui grandit encore, "
        "puis s’arrête, est un nouvel événement",
        happening=happenings.STUDY_SETTLED,
        criteria=f"%current.extension('{CANONICAL}/StructureDefinition/etude-complete').exists() and "
        f"%previous.extension('{CANONICAL}/StructureDefinition/etude-complete').empty()",
        filters=("patient", "subject", "identifier", "modality", "started"),
    ),
)
#: By canonical.
TOPICS: Mapping[str, Topic] = {topic.url: topic for topic in _ALL}
#: Those that are told of.
TOLD: tuple[Topic, ...] = tuple(topic for topic in _ALL if topic.happening is not None)

#: Version of what is published; a client may name it after a bar.
_VERSION = "1.0.0"
# Where the guide's own example says each element: an R4 server takes them from two later releases [spec fhir-fr 1.26].
_R5 = "http://hl7.org/fhir/5.0/StructureDefinition/extension-SubscriptionTopic"
_R4B = "http://hl7.org/fhir/4.3/StructureDefinition/extension-SubscriptionTopic"


def topic_of(canonical: str) -> Topic | None:
    """Find a topic by its canonical, with or without a version of ours."""
    url, bar, version = canonical.partition("|")
    topic = TOPICS.get(url)
    return topic if topic is not None and (not bar or version in {"1", "1.0", _VERSION}) else None


def basic(topic: Topic) -> dict[str, Any]:
    """The Basic that publishes a topic [spec fhir-fr 1.26, example Basic-topic-rcp-dossier]."""
    trigger: list[dict[str, Any]] = [
        {"url": "description", "valueMarkdown": topic.description},
        {"url": "resource", "valueUri": f"http://hl7.org/fhir/StructureDefinition/{topic.kind}"},
        *({"url": "supportedInteraction", "valueCode": one} for one in topic.interactions),
    ]
    if topic.criteria is not None:
        trigger.append({"url": "fhirPathCriteria", "valueString": topic.criteria})
    return {
        "resourceType": "Basic",
        "extension": [
            {"url": f"{_R5}.url", "valueUri": topic.url},
            {"url": f"{_R5}.version", "valueString": _VERSION},
            {"url": f"{_R5}.title", "valueString": topic.title},
            {"url": f"{_R4B}.resourceTrigger", "extension": trigger},
            *(
                {
                    "url": f"{_R4B}.canFilterBy",
                    "extension": [
                        {"url": "resource", "valueUri": topic.kind},
                        {"url": "filterParameter", "valueString": one},
                    ],
                }
                for one in topic.filters
            ),
        ],
        "modifierExtension": [{"url": f"{_R5}.status", "valueCode": "active"}],
        "code": {"coding": [{"system": "http://hl7.org/fhir/fhir-types", "code": "SubscriptionTopic"}]},
    }


def publish(step: Step) -> None:
    """Keep the topics that are told of as resources that everybody reads; nothing when they stand already."""
    for topic in TOLD:
        keep(step.session, "Basic", f"topic-{topic.code}", basic(topic), Owner(public=True))
