"""``@pytest.mark.req``: which rows of the requirements table a test proves, and the table that says so.

``pytest --requirements docs/requirements.md`` writes the table from the marks; ``proved`` means that a marked test
exists in the suite, which fails when one of its tests does.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

ROWS = Path(__file__).parent.parent / "docs" / "requirements.csv"
_STATUS = {"R": "not proved", "R*": "not proved", "UI3": "not ours", "ORG": "text", "CTX": "context"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--requirements", metavar="FILE", help="write the requirements table from the marks")


def rows() -> dict[str, dict[str, str]]:
    with ROWS.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = rows() if ROWS.exists() else {}
    proofs: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for mark in item.iter_markers("req"):
            for row in mark.args:
                if known and row not in known:
                    raise pytest.UsageError(f"{item.nodeid}: no requirement row {row}")
                proofs[row].add(item.nodeid.split("[")[0])
    target = config.getoption("--requirements")
    if target:
        _write(Path(target), known, proofs)


def _write(target: Path, known: dict[str, dict[str, str]], proofs: dict[str, set[str]]) -> None:
    """Both tables: the CSV's status column and the Markdown with the names of the tests."""
    for row in known.values():
        row["status"] = "proved" if row["id"] in proofs else _STATUS[row["kind"]]
    with ROWS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "requirement", "kind", "status"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(known.values())
    ours = [row for row in known.values() if row["kind"] in {"R", "R*"}]
    done = sum(row["status"] == "proved" for row in ours)
    lines = [
        "# Requirements",
        "",
        f"{done} of {len(ours)} rows that are ours to build are proved by a marked test. Made by `make requirements`.",
        "",
        "| id | requirement | kind | status | proved by |",
        "|---|---|---|---|---|",
    ]
    for row in known.values():
        tests = "<br>".join(f"`{name.removeprefix('tests/')}`" for name in sorted(proofs.get(row["id"], ())))
        text = row["requirement"].replace("|", "\\|")
        lines.append(f"| {row['id']} | {text} | {row['kind']} | {row['status']} | {tests} |")
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
