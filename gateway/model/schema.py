"""The whole schema in one place: every table module is imported, so that the metadata is complete.

A new module of tables is added here, or neither the migrations' test nor `Store.migrate` knows it.
"""

from __future__ import annotations

from gateway.model import (  # noqa: F401 - each brings its tables
    account,
    audit,
    directory,
    dossier,
    imaging,
    imaging_copy,
    meeting,
    message,
    network,
    partner,
    person,
    plan,
    received,
    report,
    representation,
    subscription,
)
from gateway.model.store import Base

__all__ = ["METADATA"]

METADATA = Base.metadata
