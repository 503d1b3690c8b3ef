"""A Communication that a client wrote to what it says as a contribution [spec fhir-fr 1.22]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.fhir.translate.elements import CANONICAL, codings

__all__ = ["contribution_text", "is_contribution"]

Tree = Mapping[str, Any]

_CONTRIBUTION = (f"{CANONICAL}/CodeSystem/rcp-message", "contribution")


def is_contribution(tree: Tree) -> bool:
    """Whether a Communication is a physician's contribution to a dossier."""
    return any(
        (coding.get("system"), coding.get("code")) == _CONTRIBUTION
        for one in tree.get("category", ())
        for coding in codings(one)
    )


def contribution_text(tree: Tree) -> str:
    """Words of a contribution: its texts in order; attachments stay with the Communication."""
    said = (part.get("contentString") for part in tree.get("payload", ()))
    return "\n\n".join(text for text in said if text)
