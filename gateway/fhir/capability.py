"""The CapabilityStatement, made from what is registered so that it never lies.

[FHIR R4 capabilitystatement, http#capabilities]
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gateway.fhir import search_columns
from gateway.fhir.document import encode
from gateway.fhir.owners import WRITABLE
from gateway.fhir.read import READABLE

__all__ = ["statement"]

_SEARCHED = tuple(kind for kind in READABLE if kind != "Binary")
#: Date of the last change of what is offered; a client compares it with the one that it kept.
_DATE = "2026-03-01"


def _software() -> str:
    try:
        return version("rcp-gateway")
    except PackageNotFoundError:
        return "0"


def statement(base_url: str, token_url: str) -> bytes:
    """Encode the statement of one deployment."""
    return encode(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": _DATE,
            "kind": "instance",
            "software": {"name": "rcp-gateway", "version": _software()},
            "implementation": {"description": "Passerelle RCP", "url": base_url},
            "fhirVersion": "4.0.1",
            "format": ["json", "application/fhir+json"],
            "rest": [
                {
                    "mode": "server",
                    "security": _security(token_url),
                    "resource": [_resource(kind) for kind in READABLE],
                    "interaction": [{"code": "transaction"}],
                }
            ],
        }
    )


def _security(token_url: str) -> dict[str, Any]:
    return {
        "extension": [
            {
                "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                "extension": [{"url": "token", "valueUri": token_url}],
            }
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


def _resource(kind: str) -> dict[str, Any]:
    codes = ["read", "vread", "history-instance"]
    offered: dict[str, Any] = {"type": kind, "versioning": "versioned", "readHistory": True}
    if kind in _SEARCHED:
        codes.append("search-type")
    if kind in WRITABLE:
        codes += ["create", "update"]
        offered |= {"versioning": "versioned-update", "conditionalCreate": True, "conditionalUpdate": True}
    offered["updateCreate"] = False
    offered["interaction"] = [{"code": code} for code in codes]
    if kind in _SEARCHED:
        parameters = search_columns.parameters(kind).values()
        offered["searchInclude"] = [f"{kind}:{one.code}" for one in parameters if one.kind == "reference"]
        offered["searchParam"] = [
            {"name": "_id", "type": "token"},
            {"name": "_lastUpdated", "type": "date"},
            *({"name": one.code, "definition": one.url, "type": one.kind} for one in parameters),
        ]
        if not offered["searchInclude"]:
            del offered["searchInclude"]
    return offered
