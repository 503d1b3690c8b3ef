"""What the documentation points at exists: keys of sources, and links between pages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCES = ROOT / "docs" / "references.md"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
MODULES = sorted((ROOT / "gateway").rglob("*.py"))

_CODE = re.compile(r"``.*?``|`.*?`", re.DOTALL)
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"(?<!\w)\[([^\[\]]+)\](?!\()")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_LOCATED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def known() -> tuple[str, ...]:
    """The keys of the page; what stands for « … » varies."""
    rows = [
        line.split("|")[1] for line in REFERENCES.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    return tuple(key for row in rows for key in re.findall(r"`\[([^\]]+)\]`", row))


def cited(module: Path) -> Iterator[str]:
    """Each source that the docstrings of a module name; one pair of brackets may name several, after semicolons."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, _LOCATED):
            text = _CODE.sub("", ast.get_docstring(node) or "")
            for key in _KEY.findall(text):
                yield from (" ".join(part.split()) for part in key.split(";"))


def anchors(page: Path) -> set[str]:
    """The anchors that the headings of a page make."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_source_that_a_docstring_names_stands_among_the_references() -> None:
    assert len(known()) > 20
    found = {(str(path.relative_to(ROOT)), key) for path in MODULES for key in cited(path)}
    assert len(found) > 100
    begins = (re.escape(one.removesuffix("…").rstrip()) + ("" if one.endswith("…") else r"(?!\w)") for one in known())
    resolved = re.compile("|".join(begins))
    assert sorted((path, key) for path, key in found if not resolved.match(key)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
