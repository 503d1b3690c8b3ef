"""The stable codes of refusals, as the source says them: found by reading it, so that none is missing from a list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

GATEWAY = Path(__file__).parents[1] / "gateway"
#: Class → category of `gateway.errors`.
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


def _texts(node: ast.AST | None) -> Iterator[str]:
    """Every code that an argument may be: a constant, or the branches of a condition."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.fullmatch(node.value):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)


@cache
def codes(*packages: str) -> dict[str, frozenset[str]]:
    """Code → categories that it is raised with, in these packages of the gateway (all when none is named)."""
    found: dict[str, set[str]] = {}
    roots = [GATEWAY / name for name in packages] or [GATEWAY]
    for path in sorted(file for root in roots for file in ([root] if root.is_file() else root.rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in CATEGORIES:
                continue
            keyword = next((one.value for one in node.keywords if one.arg == "code"), None)
            for code in _texts(node.args[0] if node.args else keyword):
                found.setdefault(code, set()).add(CATEGORIES[name])
    return {code: frozenset(kinds) for code, kinds in sorted(found.items())}
