"""The one error tree of the gateway: what went wrong, named for what the caller may do about it.

::

    GatewayError
    ├── permanent: the same request will fail again
    │   ├── InvalidContent     unreadable, or against a structure, a profile or a rule
    │   ├── UnknownIdentity    who (caller, partner, patient, professional) is not known here
    │   ├── NotFound           no such thing, or not for this caller
    │   ├── Forbidden          the caller may see it, not do this to it
    │   ├── Conflict           against what is already kept
    │   └── Unsupported        a correct request for something not offered
    ├── Unavailable            nothing happened; the same request may succeed later
    └── Fault                  ours

Promises: a stable ``code`` (kebab-case, for machines), a ``text`` in French that carries no patient data (for people).
Each wire turns the category into its own answer in its ``outcome`` module; nothing here knows a protocol.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "Conflict",
    "Fault",
    "Forbidden",
    "GatewayError",
    "InvalidContent",
    "NotFound",
    "Unavailable",
    "UnknownIdentity",
    "Unsupported",
]


class GatewayError(Exception):
    """Anything the gateway refuses or cannot do.

    Parameters
    ----------
    code
        Stable, kebab-case; clients may branch on it.
    text
        One French sentence for a person, without patient data.
    expression
        Where in the caller's message: a FHIRPath, an HL7 v2 location, a form field, a DICOM keyword.
    retry_after_s
        Seconds after which the same request is worth repeating; only for `Unavailable`.
    """

    category: ClassVar[str] = "fault"

    def __init__(
        self, code: str, text: str, *, expression: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.expression = expression
        self.retry_after_s = retry_after_s
        #: What the audit trail must say of this refusal, written after the step was undone (`gateway.rcp.step`).
        self.trail: object | None = None


class InvalidContent(GatewayError):
    """Unreadable or against a rule.

    ``rule=False`` (the default) means unreadable or structurally invalid, ``rule=True`` a profile, an invariant or a
    business rule: FHIR answers 400 or 422 accordingly.
    """

    category = "invalid-content"

    def __init__(self, code: str, text: str, *, expression: str | None = None, rule: bool = False) -> None:
        super().__init__(code, text, expression=expression)
        self.rule = rule


class UnknownIdentity(GatewayError):
    """Whoever this names is not known: no such partner, professional or patient; or not authenticated."""

    category = "unknown-identity"


class NotFound(GatewayError):
    """No such thing, or not for this caller: the two are never told apart."""

    category = "not-found"


class Forbidden(GatewayError):
    """The caller may know the thing but not do this to it."""

    category = "forbidden"


class Conflict(GatewayError):
    """Against what is kept: a version, a key, a state.

    ``precondition=True`` when the caller itself stated the condition that fails (If-Match, If-None-Exist).
    """

    category = "conflict"

    def __init__(self, code: str, text: str, *, expression: str | None = None, precondition: bool = False) -> None:
        super().__init__(code, text, expression=expression)
        self.precondition = precondition


class Unsupported(GatewayError):
    """A correct request for something that is not offered."""

    category = "unsupported"


class Unavailable(GatewayError):
    """Nothing happened; the same request may succeed later."""

    category = "unavailable"


class Fault(GatewayError):
    """Ours: a defect or a broken deployment."""

    category = "fault"
