"""The stable codes of refusals, as the source says them: found by reading it, so that none is missing from a list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Class or function that makes a refusal or a remark → category of `gateway.errors`.
CATEGORIES = {
    "InvalidContent": "invalid-content",
    "UnknownIdentity": "unknown-identity",
    "NotFound": "not-found",
    "Forbidden": "forbidden",
    "Conflict": "conflict",
    "Unsupported": "unsupported",
    "Unavailable": "unavailable",
    "Fault": "fault",
    "Issue": "issue",
    "warning": "warning",
}
_CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True, order=True)
class Refusal:
    """One place that refuses.

    ``flags`` are the keywords that are true there (``rule``, ``precondition``); ``text`` has … where a value stands.
    """

    code: str
    category: str
    flags: frozenset[str]
    text: str


@cache
def refusals(*places: str) -> tuple[Refusal, ...]:
    """Every refusal of these modules or packages of the gateway (all of it when none is named)."""
    roots = [ROOT / "gateway" / name for name in places] or [ROOT / "gateway"]
    files = sorted(file for root in roots for file in ([root] if root.is_file() else root.rglob("*.py")))
    return tuple(sorted({one for file in files for one in _of(file)}, key=lambda one: (one.code, one.text)))


@cache
def codes() -> frozenset[str]:
    """Every code of the gateway."""
    return frozenset(one.code for one in refusals())


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _of(file: Path) -> Iterator[Refusal]:
    scopes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    for scope in scopes:  # grows while it is walked
        nodes = list(_own(scope))
        scopes += [node for node in nodes if isinstance(node, _SCOPES)]
        said = [node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
        for node in nodes:
            if isinstance(node, ast.Call):
                yield from _refusal(node, said)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a scope, without those of the scopes inside it."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, _SCOPES):
            yield from _own(node)


def _refusal(node: ast.Call, assigned: list[ast.Assign]) -> Iterator[Refusal]:
    category = CATEGORIES.get(getattr(node.func, "attr", getattr(node.func, "id", "")))
    if category is None:
        return
    # Of the variables above the call, the nearest assignment counts.
    above = sorted((one for one in assigned if one.lineno <= node.lineno), key=lambda one: one.lineno)
    said = {one.targets[0].id: one.value for one in above if isinstance(one.targets[0], ast.Name)}
    keywords = {one.arg: one.value for one in node.keywords if one.arg}
    first, second = [*node.args, None, None][:2]
    flags = frozenset(
        name for name, value in keywords.items() if isinstance(value, ast.Constant) and value.value is True
    )
    for code in _codes(first or keywords.get("code"), said):
        yield Refusal(code, category, flags, _text(second or keywords.get("text"), said))


def _codes(node: ast.expr | None, said: dict[str, ast.expr]) -> Iterator[str]:
    """What a code may be: a constant, the branches of a condition, a variable of either."""
    if isinstance(node, ast.Name) and node.id in said and not isinstance(said[node.id], ast.Name):
        yield from _codes(said[node.id], said)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.fullmatch(node.value):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _codes(node.body, said)
        yield from _codes(node.orelse, said)


def _text(node: ast.expr | None, said: dict[str, ast.expr]) -> str:
    if isinstance(node, ast.Name) and node.id in said and not isinstance(said[node.id], ast.Name):
        return _text(said[node.id], said)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (one.value if isinstance(one, ast.Constant) else "…" for one in node.values)
        return "".join(str(part) for part in parts)
    return ""
