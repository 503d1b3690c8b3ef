"""The viewer's modules that touch neither page nor network, run by Node as they are served to browsers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.portal.render import STATIC_TYPES, static_file, static_url

HERE = Path(__file__).parent / "viewer_modules"
STATIC = Path(__file__).parents[3] / "gateway" / "portal" / "static"


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.js")))
def test_a_module_does_what_its_own_tests_say(name: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (make test installs it as root)")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for path in (*STATIC.glob("viewer*.js"), HERE / name):
        shutil.copy(path, tmp_path)
    run = subprocess.run(
        [node, "--test", name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env={}
    )
    assert run.returncode == 0, run.stdout
    assert "# pass 0" not in run.stdout


def test_every_script_is_served_and_asks_for_others_by_their_content() -> None:
    """An address that is cached for a year must change with what stands behind it, imports included."""
    assert {path.name for path in STATIC.iterdir()} == set(STATIC_TYPES)
    for name in STATIC_TYPES:
        content = static_file(name)
        assert content is not None
        if name.endswith(".js"):
            assert b'from "./' not in content, name
    assert static_url("viewer_pixels.js").encode() in (static_file("viewer_store.js") or b"")
