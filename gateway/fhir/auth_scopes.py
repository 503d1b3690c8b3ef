"""SMART scopes of system clients: what a token allows, in the letters of version 2.

[SMART App Launch 2: scopes-and-launch-context, backend-services]

``system/Patient.rs`` allows read and search of Patient; ``system/*.cruds`` everything; version 1 ``.read``, ``.write``
and ``.*`` are read as the letters they stand for. Granular scopes (with ``?``) are not granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from gateway.errors import Forbidden
from gateway.rcp import access
from gateway.rcp.access import Caller, CallerKind

__all__ = ["allows", "granted", "held", "permits", "require_scope"]

_SCOPE = re.compile(r"system/(\*|[A-Z][A-Za-z]+)\.(\*|read|write|c?r?u?d?s?)")
_VERSION_1 = {"read": "rs", "write": "cud", "*": "cruds"}
_WORDS = {"c": "créer", "r": "lire", "u": "modifier", "d": "supprimer", "s": "rechercher"}


def _letters(scope: str) -> tuple[str, frozenset[str]] | None:
    match = _SCOPE.fullmatch(scope)
    if match is None:
        return None
    said = match.group(2)
    return match.group(1), frozenset(_VERSION_1.get(said, said))


def allows(scopes: Iterable[str], kind: str, letter: str) -> bool:
    """Whether scopes allow one interaction on one type."""
    for scope in scopes:
        read = _letters(scope)
        if read is not None and read[0] in {"*", kind} and letter in read[1]:
            return True
    return False


def granted(asked: Iterable[str], registered: Iterable[str]) -> list[str]:
    """Keep of what a client asks for what it is registered for, each scope whole or narrowed to the allowed letters."""
    known = list(registered)
    kept: list[str] = []
    for scope in asked:
        read = _letters(scope)
        if read is None:
            continue
        kind, letters = read
        allowed = "".join(letter for letter in "cruds" if letter in letters and allows(known, kind, letter))
        if allowed:
            kept.append(f"system/{kind}.{allowed}")
    return kept


@lru_cache(maxsize=1024)
def held(said: frozenset[str], registered: tuple[str, ...]) -> frozenset[str]:
    """What a token still allows: what both its scopes and those that its partner is registered for now allow."""
    return frozenset(granted(said, registered)) | frozenset(granted(registered, said))


def permits(caller: Caller, kind: str, letter: str) -> bool:
    """Whether a caller's token allows one interaction on one type; people and the gateway have no scopes."""
    bounded = caller.kind in {CallerKind.CLIENT, CallerKind.PEER, CallerKind.PACS}
    return not bounded or allows(caller.scopes, kind, letter)


def require_scope(caller: Caller, kind: str, letter: str) -> None:
    """Refuse an interaction that a client's token does not allow; the refusal says to the trail who asked.

    Raises
    ------
    Forbidden
        ``portee-insuffisante``.
    """
    if not permits(caller, kind, letter):
        text = f"Le jeton ne permet pas de {_WORDS[letter]} des ressources {kind}."
        refusal = Forbidden("portee-insuffisante", text)
        refusal.trail = access.facts(caller, "refus", outcome="4", reason=refusal.code, object_type=kind)
        raise refusal
