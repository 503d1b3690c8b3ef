"""What a newcomer gets: the built wheel, installed elsewhere, plays the whole story; nobody's folder changes.

Each run is the real command in a process of its own, with its own data directory and free ports.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ACTS = 9


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what git would give a fresh clone."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source]
    subprocess.run(build, check=True, capture_output=True)
    return next(out.glob("*.whl"))


NOBODY = 65534
#: For `subprocess`; setpriv would keep root's capabilities for the first path that it opens.
AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def install(wheel: Path, place: Path, python: Path) -> Path:
    """An environment that has the locked dependencies and the wheel, but not the checkout."""
    subprocess.run([python, "-m", "venv", "--without-pip", place], check=True, capture_output=True)
    site = next(place.glob("lib/python3*/site-packages"))
    # A plain path line: the checkout's own editable hook in that folder is not followed.
    (site / "dependances.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--force-reinstall", "--no-index", wheel], check=True, capture_output=True)
    return place


def interpreter_for_anybody() -> Path:
    """A Python of this version that an ordinary user may run: root's own may stand in a closed home."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (Path(sys.base_prefix) / "bin" / "python3", Path("/usr/bin/python3")):
        with contextlib.suppress(PermissionError):
            told = subprocess.run(
                [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                cwd="/",
                **AS_NOBODY,
            )
            if told.returncode == 0 and told.stdout.decode().strip() == version:
                return candidate
    raise AssertionError(f"no Python {version} that an ordinary user may run")


def play(place: Path, data: Path, **user: Any) -> list[dict[str, Any]]:
    """Run the demo once, from a folder that is not the checkout, and read what it left."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(data.parent),
        "RCP_DATA_DIR": str(data),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    program = place / "bin" / "rcp-gateway"
    done = subprocess.run(
        [program, "demo", "--once"], cwd=data.parent, env=environment, capture_output=True, timeout=600, **user
    )
    assert done.returncode == 0, done.stdout.decode()[-3000:] + done.stderr.decode()[-3000:]
    return json.loads((data / "demo" / "story.json").read_text(encoding="utf-8"))


def modes(*folders: Path) -> dict[str, tuple[int, int, int]]:
    """Owner, group and mode of folders and of all their parents."""
    seen = {}
    for folder in folders:
        for path in (folder, *folder.parents):
            state = path.stat()
            seen[str(path)] = (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode))
    return seen


def test_the_wheel_plays_the_story_in_a_closed_folder(wheel: Path, tmp_path: Path) -> None:
    elsewhere = install(wheel, tmp_path / "ailleurs", Path(sys.executable))
    closed = tmp_path / "ferme"
    closed.mkdir()
    closed.chmod(0o700)
    before = modes(closed, elsewhere, ROOT)
    story = play(elsewhere, closed / "donnees")
    assert modes(closed, elsewhere, ROOT) == before
    assert {step["act"] for step in story} == set(range(1, ACTS + 1))
    for step in story:
        assert step["outcome"], step["name"]
        if step["file"]:
            assert (closed / "donnees" / "demo" / str(step["file"])).stat().st_size > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another ordinary user; anybody else is one already")
def test_an_ordinary_user_plays_the_story(wheel: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="rcp-ordinaire-") as folder:  # pytest's own folders are root's alone
        place = Path(folder)
        place.chmod(0o755)
        elsewhere = install(wheel, place / "ailleurs", interpreter_for_anybody())
        home = place / "maison"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        story = play(elsewhere, home / "donnees", **AS_NOBODY)
        assert {step["act"] for step in story} == set(range(1, ACTS + 1))
        assert (home / "donnees" / "demo" / "story.json").stat().st_uid == NOBODY
