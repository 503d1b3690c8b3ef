"""The whole schema in one place: every table module is imported, so that the metadata is complete."""

from __future__ import annotations

from gateway.model import (
    account,
    audit,
    directory,
    dossier,
    imaging,
    meeting,
    message,
    network,
    partner,
    person,
    report,
    representation,
)
from gateway.model.store import Base

__all__ = ["METADATA", "MODULES"]

MODULES = (
    account,
    audit,
    directory,
    dossier,
    imaging,
    meeting,
    message,
    network,
    partner,
    person,
    report,
    representation,
)

METADATA = Base.metadata
