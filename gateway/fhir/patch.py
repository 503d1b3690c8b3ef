"""Changes to a part of a resource: read once, carried out on a copy of what is kept.

[FHIR R4 http#patch; spec fhir-fr 3.1, 3.5]

Two forms: a JSON Patch (`gateway.fhir.patch_json`) and a FHIRPath Patch (`gateway.fhir.patch_path`); an XML Patch is
not offered. Promises: a patch that cannot be read is refused before anything is looked up; the tree it is laid over is
never changed; no operation multiplies what a body under its limit holds; the id, the version, the instant and the
business identifiers of a resource cannot be patched. Not promised: that the result is a valid resource (it is judged as
an update is).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.errors import InvalidContent, Unsupported
from gateway.fhir import document, patch_bounds, patch_json, patch_path
from gateway.fhir.document import Tree
from gateway.settings import Limits

__all__ = ["JSON_PATCH", "Patch", "from_binary", "from_json", "from_parameters", "patched"]

JSON_PATCH = "application/json-patch+json"
#: What a patch may not change, and how the refusal names it.
_FIXED: Mapping[str, tuple[str, ...]] = {
    "resourceType": ("resourceType",),
    "id": ("id",),
    "meta.versionId": ("meta", "versionId"),
    "meta.lastUpdated": ("meta", "lastUpdated"),
    "identifier": ("identifier",),
}


class Patch(Protocol):
    """A patch that was read, under limits that what it leaves obeys too."""

    @property
    def limits(self) -> Limits:
        """The wire's."""

    def apply(self, tree: Tree) -> Any:
        """Return the changed copy of a tree."""


def from_json(content: bytes, limits: Limits) -> Patch:
    """Read a JSON Patch.

    Raises
    ------
    InvalidContent
        See `gateway.fhir.document.parse_any` and `gateway.fhir.patch_json.read`.
    """
    return patch_json.read(document.parse_any(content, limits), limits)


def from_parameters(tree: Tree, limits: Limits) -> Patch:
    """Read a FHIRPath Patch; see `gateway.fhir.patch_path.read` for the refusals."""
    return patch_path.read(tree, limits)


def from_binary(tree: Tree, limits: Limits) -> Patch:
    """Read the JSON Patch that a Binary carries, as transactions do.

    Raises
    ------
    InvalidContent
        ``patch-illisible``: the data are no base64.
    Unsupported
        ``type-de-contenu``: another patch format.
    """
    if str(tree.get("contentType", "")).partition(";")[0].strip().lower() != JSON_PATCH:
        text = f"Un patch porté par un Binary est en {JSON_PATCH}."
        raise Unsupported("type-de-contenu", text, expression="Binary.contentType")
    try:
        content = b64decode(str(tree.get("data", "")), validate=True)
    except (binascii.Error, ValueError):
        text = "Le patch porté par le Binary n’est pas du base64."
        raise InvalidContent("patch-illisible", text, expression="Binary.data") from None
    return from_json(content, limits)


def patched(patch: Patch, tree: Tree) -> Tree:
    """Lay a patch over a copy of a resource.

    Raises
    ------
    Conflict
        ``patch-test``, ``patch-cible``: the resource is not as the patch supposes.
    InvalidContent
        ``element-protege`` (rule); ``patch-illisible`` when what remains is no resource; ``patch-demesure`` when no
        body could hold it.
    """
    changed = patch.apply(tree)
    if not isinstance(changed, dict):
        raise InvalidContent("patch-illisible", "Le patch ne laisse pas une ressource.")
    patch_bounds.require_fit(changed, patch.limits)
    changed = _without_empty(changed)
    for name, path in _FIXED.items():
        if _at(tree, path) != _at(changed, path):
            text = f"L’élément {name} ne se modifie pas par un patch."
            raise InvalidContent("element-protege", text, expression=f"{tree['resourceType']}.{name}", rule=True)
    return changed


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _without_empty(tree: Tree) -> Tree:
    """Drop what a removal left empty: FHIR has no empty object or list [FHIR R4 json#resources]."""
    kept: Any = _pruned(tree)
    return kept if isinstance(kept, dict) else {}


def _pruned(node: Any) -> Any:
    if isinstance(node, dict):
        below = {name: _pruned(value) for name, value in node.items()}
        return {name: value for name, value in below.items() if value not in ({}, [])}
    if isinstance(node, list):
        items = [_pruned(item) for item in node]
        return [item for item in items if item not in ({}, [])]
    return node
