"""Drawing processes: each limit is named, and none of them costs anybody else's picture."""

import asyncio
import os
import signal
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagecodecs import htj2k_encode, jpeg8_encode
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, JPEGLosslessSV1, RLELossless

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set, write_series
from gateway.dicom import drawing
from gateway.dicom.colours import carried
from gateway.dicom.drawing import Drawing
from gateway.dicom.render import render
from gateway.errors import GatewayError, InvalidContent, Unavailable, Unsupported
from tests.loopback import wait_until

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
ASKED = {"media_type": "image/png", "window": None, "viewport": None, "quality": None}


@pytest.fixture
def make_drawing():
    made = []

    def make(**given) -> Drawing:
        made.append(Drawing(processes=1, **given))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def shared():
    one = Drawing(processes=1)
    yield one
    one.close()


@pytest.fixture
def ct(tmp_path):
    return write_series(DOMINIQUE, tmp_path / "ct")[2]


@pytest.fixture
def heavy(tmp_path):
    """As many pixels as are taken, with a hole for a body: seconds of work in a few kilobytes of disk."""
    ds = slice_data_set(DOMINIQUE, 1)
    ds.Rows = ds.Columns = 8192
    ds.PixelData = b"\0\0"
    path = tmp_path / "heavy.dcm"
    ds.save_as(path, enforce_file_format=True)
    size = 8192 * 8192 * 2
    content = path.read_bytes()
    assert content.endswith(b"OW\0\0\2\0\0\0\0\0")
    with path.open("r+b") as file:
        file.seek(-6, os.SEEK_END)
        file.write(size.to_bytes(4, "little"))
        file.truncate(len(content) - 2 + size)
    return path


def children() -> set[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "gateway.dicom.easel"], capture_output=True, text=True
    )
    return {int(line) for line in found.stdout.split()}


def peak_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])


def code_of(call) -> str:
    with pytest.raises(GatewayError) as refusal:
        call()
    return refusal.value.code


def test_a_picture_is_the_one_drawn_here(shared, ct):
    kind, content = shared.do("picture", ct, key="a", **ASKED)
    assert (kind, content) == ("image/png", render(ct, media_type="image/png"))
    windowed = shared.do("picture", ct, key="a", **{**ASKED, "window": [40, 400, "LINEAR"], "viewport": [9, 9, None]})
    assert windowed[1] != content


def test_time_is_bounded_and_a_process_that_took_it_is_replaced(make_drawing, heavy, ct):
    slow = make_drawing(seconds=60)
    others = children()
    slow.do("picture", ct, key="ct", **ASKED)
    [child] = children() - others
    slow._seconds = 0.3
    assert code_of(lambda: slow.do("picture", heavy, key="heavy", **ASKED)) == "dicom-render-time"
    slow._seconds = 60
    assert slow.do("picture", ct, key="ct", **ASKED)[1]
    assert child not in children()


def test_what_took_a_limit_is_refused_at_once_afterwards(make_drawing, heavy, monkeypatch):
    slow = make_drawing(seconds=0.3)
    assert code_of(lambda: slow.do("picture", heavy, key="heavy", **ASKED)) == "dicom-render-time"
    monkeypatch.setattr(slow, "_answer", lambda _: pytest.fail("asked again"))
    with pytest.raises(InvalidContent, match=r"0\.3 s"):
        slow.do("picture", heavy, key="heavy", **ASKED)
    monkeypatch.setattr(drawing, "_REMEMBERED_S", -1.0)
    with pytest.raises(pytest.fail.Exception):
        slow.do("picture", heavy, key="heavy", **ASKED)


def test_other_work_on_an_object_is_not_refused_for_what_took_a_limit(make_drawing, heavy, ct):
    """Who has a whole study converted leaves its first picture to all others."""
    slow = make_drawing(seconds=0.3)
    asked = {"key": "one", "transfer_syntax": "1.2.840.10008.1.2.4.90"}
    assert code_of(lambda: slow.do("transcoded", heavy, **asked)) == "dicom-render-time"
    slow._seconds = 60
    assert slow.do("picture", ct, key="one", **ASKED)[0] == "image/png"


def test_memory_is_bounded(make_drawing, heavy, ct):
    small = make_drawing(memory_bytes=500 << 20, seconds=60)
    assert code_of(lambda: small.do("picture", heavy, key="heavy", **ASKED)) == "dicom-render-memory"
    assert small.do("picture", ct, key="ct", **ASKED)[1]


def test_a_decoder_that_crashes_costs_its_own_picture(make_drawing, heavy, ct):
    one = make_drawing(seconds=60)
    codes = []
    work = threading.Thread(
        target=lambda: codes.append(code_of(lambda: one.do("picture", heavy, key="heavy", **ASKED)))
    )
    before = children()
    work.start()
    assert wait_until(lambda: children() - before)
    [child] = children() - before
    # Once it holds pixels it works on them; a signal before that would meet a process that only starts.
    assert wait_until(lambda: peak_kib(child) > 150_000)
    os.kill(child, signal.SIGSEGV)
    work.join(60)
    assert codes == ["dicom-render-crash"]
    assert one.do("picture", ct, key="ct", **ASKED)[1]


def test_a_process_that_was_killed_while_idle_is_replaced(make_drawing, ct):
    one = make_drawing()
    before = children()
    one.do("picture", ct, key="ct", **ASKED)
    [child] = children() - before
    os.kill(child, signal.SIGKILL)
    assert one.do("picture", ct, key="ct", **ASKED)[1]


def test_they_end_with_the_process_that_started_them_and_know_no_secret(tmp_path):
    program = (
        "import os,signal,subprocess,sys,time\n"
        "from gateway.dicom.drawing import Drawing\n"
        "one = Drawing(processes=1)\n"
        "one._warm()\n"
        "command = ['pgrep', '-P', str(os.getpid()), '-f', 'gateway.dicom.easel']\n"
        "found = subprocess.run(command, capture_output=True, text=True)\n"
        "print(found.stdout.split()[0], flush=True)\n"
        "signal.pause()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RCP_SECRET_KEY": "s3cret"},
    )
    child = int(parent.stdout.readline())
    assert b"s3cret" not in Path(f"/proc/{child}/environ").read_bytes()
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def gone() -> bool:
        try:
            return "State:\tZ" in Path(f"/proc/{child}/status").read_text()
        except OSError:
            return True

    assert wait_until(gone)


def test_more_than_may_wait_are_told_to_come_back(shared, ct, monkeypatch):
    monkeypatch.setattr(drawing, "_WAITING", 0)
    with pytest.raises(Unavailable) as refusal:
        shared.do("picture", ct, key="ct", **ASKED)
    assert (refusal.value.code, refusal.value.retry_after_s) == ("dicom-render-busy", 1)


def test_a_refusal_keeps_its_kind(shared, ct):
    with pytest.raises(Unsupported):
        shared.do("picture", FILES / "rtplan.dcm", key="plan", **ASKED)
    assert code_of(lambda: shared.do("picture", ct, key="ct", **{**ASKED, "frame": 2})) == "inconnu"
    assert code_of(lambda: shared.do("picture", Path("/nonexistent"), key="none", **ASKED)) == "dicom-unreadable"


#: Small files of each compression, and what may be changed in them without their ceasing to be DICOM at all.
SEEDS = (
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "JPGExtended.dcm",
    "test-SR.dcm",
    "liver_1frame.dcm",
    "lossless.dcm",
    "high_throughput.dcm",
)


@pytest.fixture(scope="session")
def seeds(tmp_path_factory):
    """Where they are; those that pydicom has no file of are made."""
    folder = tmp_path_factory.mktemp("seeds")
    for name, syntax, encode in (
        ("lossless.dcm", JPEGLosslessSV1, partial(jpeg8_encode, lossless=True, predictor=1)),
        ("high_throughput.dcm", HTJ2KLossless, partial(htj2k_encode, reversible=True)),
    ):
        ds = dcmread(FILES / "MR_small.dcm")
        ds.PixelData = encapsulate([bytes(encode(ds.pixel_array.view(np.uint16)))])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(folder / name)
    return {name: folder / name if (folder / name).exists() else FILES / name for name in SEEDS}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=6),
    kept=st.floats(0.3, 1),
)
def test_whatever_the_bytes_are_there_is_an_answer(shared, tmp_path, seeds, seed, changes, kept):
    content = bytearray(seeds[seed].read_bytes())
    for place, bytes_ in changes:
        at = 132 + int(place * (len(content) - 140))
        content[at : at + len(bytes_)] = bytes_
    path = tmp_path / "fuzzed.dcm"
    path.write_bytes(content[: max(200, int(len(content) * kept))] if kept < 0.9 else content)
    work, asked = ("document", {"offered": ("text/html",)}) if "SR" in seed else ("picture", ASKED)
    try:
        kind, made = shared.do(work, path, key=os.urandom(8).hex(), **asked)
    except GatewayError as refusal:
        code, kind, made = refusal.code, "refused", b"-"
    else:
        code = "dicom-"
    assert code.startswith("dicom-")
    assert made
    assert kind in ("image/png", "text/html", "refused")


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A small picture with a profile of 552 bytes: where it stands in the file, and its length."""
    ds = dcmread(FILES / "SC_rgb_small_odd.dcm")
    ds.ICCProfile = carried(pydicom.Dataset(), "adobergb")
    path = tmp_path_factory.mktemp("coloured") / "coloured.dcm"
    ds.save_as(path)
    return path, path.read_bytes().index(ds.ICCProfile), len(ds.ICCProfile)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=4)), min_size=1, max_size=5),
    wish=st.sampled_from(["yes", "srgb", "rommrgb"]),
)
def test_whatever_a_profile_is_the_picture_is_drawn(shared, tmp_path, coloured, changes, wish):
    path, start, length = coloured
    content = bytearray(path.read_bytes())
    for place, bytes_ in changes:
        at = start + int(place * (length - 4))
        content[at : at + len(bytes_)] = bytes_
    (tmp_path / "fuzzed.dcm").write_bytes(content)
    drawn = shared.do("picture", tmp_path / "fuzzed.dcm", key=os.urandom(8).hex(), **ASKED)
    assert drawn[0] == "image/png"
    try:
        shared.do("picture", tmp_path / "fuzzed.dcm", key=os.urandom(8).hex(), **ASKED, iccprofile=wish)
    except InvalidContent as refusal:
        code = refusal.code
    else:
        code = "dicom-icc-profile"
    assert code == "dicom-icc-profile"


def test_who_goes_away_ends_the_work_and_its_place_is_another_s(make_drawing, heavy, ct):
    one = make_drawing(seconds=60)
    before = children()

    async def story():
        asked = asyncio.create_task(one.drawn("picture", heavy, key="heavy", **ASKED))
        behind = asyncio.create_task(one.drawn("picture", ct, key="left", **ASKED))
        waiting = asyncio.create_task(one.drawn("picture", ct, key="ct", **ASKED))
        assert await asyncio.to_thread(wait_until, lambda: children() - before)
        [child] = children() - before
        assert await asyncio.to_thread(wait_until, lambda: peak_kib(child) > 150_000)  # it works on the pixels
        assert not waiting.done()
        behind.cancel()
        asked.cancel()
        await asyncio.wait([asked, behind])
        assert asked.cancelled()
        assert behind.cancelled()
        assert (await waiting)[0] == "image/png"
        return child

    gone = asyncio.run(story())
    assert wait_until(lambda: gone not in children())
    assert one.idle
    assert one.do("picture", ct, key="ct", **ASKED)[1]


def test_a_place_is_given_in_order_and_lost_with_nobody():
    """Whoever gives up, before his turn or as it comes, leaves it to the next."""
    places, came = drawing._Places(1), []

    async def enter(name):
        await places.enter()
        came.append(name)

    async def story():
        await places.enter()
        tasks = [asyncio.create_task(enter(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        places.leave()
        tasks[0].cancel()  # his turn was on its way
        await asyncio.wait([tasks[2]])
        assert came == ["c"]
        places.leave()
        await tasks[3]
        places.leave()
        await asyncio.wait_for(places.enter(), 1)

    asyncio.run(story())
    assert came == ["c", "d"]


def test_threads_and_event_loops_wait_in_one_line(shared, ct):
    kinds = []

    def ask(_):
        kinds.append(shared.do("picture", ct, key="ct", **ASKED)[0])

    async def together():
        return await asyncio.gather(*(shared.drawn("picture", ct, key="ct", **ASKED) for _ in range(8)))

    with ThreadPoolExecutor(4) as threads:
        others = threads.map(ask, range(8))
        assert {kind for kind, _ in asyncio.run(together())} == {"image/png"}
        list(others)
    assert kinds == ["image/png"] * 8


@pytest.mark.parametrize("compressed", [False, True])
def test_a_frame_of_a_large_object_costs_the_memory_of_a_frame(make_drawing, tmp_path, compressed):
    """A thousand frames on a disk that holds none of their pixels; compressed ones without a table of offsets."""
    ds = slice_data_set(DOMINIQUE, 1)
    ds.Rows = ds.Columns = 512
    ds.NumberOfFrames = 1000
    path = tmp_path / "large.dcm"
    if compressed:
        # Two segments, of the high and of the low bytes; in a hole, each pair of bytes is a literal of one byte.
        size = 64 + 2 * 2 * 512 * 512
        item = struct.pack("<HHLLLL", 0xFFFE, 0xE000, size, 2, 64, 64 + 2 * 512 * 512)
        ds.PixelData = encapsulate([b"\0\0"], has_bot=False)
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = RLELossless
        ds.save_as(path, enforce_file_format=True)
        start = path.stat().st_size - 18  # an item and the end of the sequence
        with path.open("r+b") as file:
            for number in range(1000):
                file.seek(start + number * (size + 8))
                file.write(item)
            file.seek(start + 1000 * (size + 8))
            file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
    else:
        ds.PixelData = b"\0\0"
        ds.save_as(path, enforce_file_format=True)
        whole = 1000 * 512 * 512 * 2
        with path.open("r+b") as file:
            file.seek(-6, os.SEEK_END)
            file.write(whole.to_bytes(4, "little"))
            file.truncate(path.stat().st_size - 2 + whole)
    assert path.stat().st_size > 500_000_000
    one = make_drawing(seconds=60)
    before = children()
    one.do("picture", write_series(DOMINIQUE, tmp_path / "ct")[2], key="ct", **ASKED)
    [child] = children() - before
    usual = peak_kib(child)
    for frame in (1, 2, 700, 999, 1000):
        assert one.do("picture", path, key="large", **{**ASKED, "frame": frame})[1]
    assert peak_kib(child) - usual < 32 << 10


def test_a_large_answer_comes_whole(shared, tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    ds.Rows, ds.Columns = 2048, 1024
    ds.PixelData = os.urandom(2048 * 1024 * 2)
    path = tmp_path / "noise.dcm"
    ds.save_as(path, enforce_file_format=True)
    assert shared.do("frame", path, key="noise")[1] == ds.PixelData
