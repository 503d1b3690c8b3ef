"""An object that is still being written is read as it will be when it is whole, or not yet."""

import random
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.dicom import translate
from gateway.dicom.succession import HEAD_BYTES
from gateway.errors import InvalidContent

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SAMPLES = sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))


def early_of(path: Path):
    with path.open("rb") as file:
        return translate.read_early(path, file.read(HEAD_BYTES))


def whole(path: Path):
    try:
        return translate.read(path)
    except InvalidContent:
        return None


def test_no_cut_of_any_sample_says_anything_else(tmp_path):
    early, cut = 0, tmp_path / "cut"
    for path in SAMPLES:
        content, said = path.read_bytes(), whole(path)
        places = random.Random(path.name).sample(range(len(content)), min(12, len(content)))  # noqa: S311 - places
        for place in [*places, len(content)]:
            cut.write_bytes(content[:place])
            found = early_of(cut)
            assert found is None or found == said, (path, place)
            early += found is not None
    assert early > 300


def test_pixels_that_have_begun_are_enough(tmp_path):
    [path] = write_series(DOMINIQUE, tmp_path / "ct")[:1]
    content, cut = path.read_bytes(), tmp_path / "cut"
    begins = content.index(b"\xe0\x7f\x10\x00OW")
    for place, known in [(begins, False), (begins + 3, False), (begins + 12, True), (begins + 13, True)]:
        cut.write_bytes(content[:place])
        assert (early_of(cut) is not None) is known


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_left_to_whoever_reads_the_whole(tmp_path, data):
    path = data.draw(st.sampled_from([path for path in SAMPLES if path.stat().st_size < 50_000]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content)
    found = early_of(damaged)
    assert found is None or found == whole(damaged)
