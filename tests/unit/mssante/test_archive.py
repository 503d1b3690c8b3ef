"""Zips of others: what `zipfile` and the national senders write is read alike, what lies is refused."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidContent
from gateway.mssante.archive import ArchiveLimits, unpack
from tests.xdm_samples import zipped

NAMES = st.text("ABCDEFGHIJ0123456789_é", min_size=1, max_size=12)


def code(data, **limits):
    with pytest.raises(InvalidContent) as refused:
        unpack(data, ArchiveLimits(**limits) if limits else None)
    return refused.value.code


@settings(max_examples=60)
@given(
    st.dictionaries(NAMES, st.binary(max_size=300), max_size=8),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_what_the_standard_library_writes_is_read(files, method):
    lenient = ArchiveLimits(ratio=2000)
    assert unpack(zipped(files, method=method), lenient) == files


def test_a_zip_written_in_one_stream_is_read():
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("IHE_XDM/A.XML", b"<a/>" * 4)
    with zipfile.ZipFile(io.BytesIO(pipe.data)) as archive:
        assert archive.infolist()[0].flag_bits & 8  # sizes follow the bytes
    assert unpack(pipe.data) == {"IHE_XDM/A.XML": b"<a/>" * 4}


def test_folders_are_left_out():
    assert unpack(zipped({"IHE_XDM/": b"", "IHE_XDM/A": b"a"})) == {"IHE_XDM/A": b"a"}


@settings(max_examples=60)
@given(st.data())
def test_no_change_of_bytes_gives_other_files(data):
    """Whatever is changed or cut, the files are those that were put in, or the archive is refused."""
    files = {"A.XML": b"<a>" + bytes(range(60)) + b"</a>", "B.XML": b"<b/>"}
    made = bytearray(zipped(files))
    kind = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    where = data.draw(st.integers(0, len(made) - 1))
    if kind == "cut":
        made = made[:where]
    elif kind == "flip":
        made[where] ^= 1 << data.draw(st.integers(0, 7))
    else:
        made[where:where] = data.draw(st.binary(min_size=1, max_size=4))
    try:
        found = unpack(bytes(made))
    except GatewayError as refused:
        assert refused.code.startswith("zip-")  # noqa: PT017 - either is right
    else:
        assert sorted(found.values()) == sorted(files.values())


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(noise):
    with pytest.raises(GatewayError):
        unpack(b"PK\x03\x04" + noise)


def patched(data, *, at_central=None, at_local=None):
    """Write into the first central header, or the first local one, at an offset of the format."""
    made = bytearray(data)
    central = made.index(b"PK\x01\x02")
    for base, change in ((central, at_central), (0, at_local)):
        if change is not None:
            offset, value = change
            made[base + offset : base + offset + len(value)] = value
    return bytes(made)


def u32(value):
    return struct.pack("<L", value)


ONE = zipped({"A.XML": b"<a>0123456789</a>" * 3}, method=zipfile.ZIP_STORED)


def test_a_bomb_that_says_its_size_is_refused_before_it_is_unpacked():
    assert code(zipped({"A": bytes(20_000_000)})) == "zip-bombe"  # ratio
    assert code(zipped({"A": b"abcdefgh" * 100, "B": b"abcdefgh" * 100}), unpacked_bytes=1500) == "zip-bombe"
    assert code(zipped({f"F{n}": b"" for n in range(101)})) == "zip-bombe"


def test_a_bomb_that_hides_its_size_is_unpacked_no_further_than_it_said():
    real = bytes(30_000_000)
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = squeezed.compress(real) + squeezed.flush()
    size = u32(len(packed) * 50)
    data = patched(zipped({"A": real}), at_central=(24, size), at_local=(22, size))
    assert code(data) == "zip-bombe"


def test_a_declared_size_that_is_not_the_real_one_is_refused():
    for size in (5, 5000):
        data = zipped({"A.XML": b"<a>0123456789</a>" * 3})
        assert code(patched(data, at_central=(24, u32(size)), at_local=(22, u32(size)))) == "zip-bombe"
    assert code(patched(ONE, at_local=(22, u32(5)))) == "zip-bombe"


def test_entries_that_share_their_bytes_are_refused():
    inner = zipped({"B": b"b" * 9}, method=zipfile.ZIP_STORED)
    local = inner[: inner.index(b"PK\x01\x02")]
    made = bytearray(zipped({"A": local, "B": b"b" * 9}, method=zipfile.ZIP_STORED))
    second = made.rindex(b"PK\x01\x02")
    made[second + 42 : second + 46] = u32(30 + len("A"))  # B is what A holds
    with zipfile.ZipFile(io.BytesIO(bytes(made))) as archive:
        assert archive.infolist()[1].header_offset == 31
    assert code(bytes(made)) == "zip-bombe"


def test_a_zip_within_the_zip_is_never_looked_at():
    inner = zipped({"../B": b"b"}, method=zipfile.ZIP_STORED)
    assert unpack(zipped({"A": inner})) == {"A": inner}


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/abs", "C:\\x", "c:x", "a\\b", "./a", "a/..", "a\nb", "a\x7fb", "a/./b"]
)
def test_a_name_that_leads_elsewhere_is_refused(name):
    assert code(zipped({name: b"x"})) == "zip-chemin"


def test_a_name_that_is_cut_by_nul_is_refused():
    assert code(zipped({"AxXML": b"x"}).replace(b"AxXML", b"A\0XML")) == "zip-chemin"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_a_device_is_refused(kind):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("A")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert code(buffer.getvalue()) == "zip-chemin"


def test_two_entries_of_one_name_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.xml", b"1")
        archive.writestr("A.XML", b"2")
    assert code(buffer.getvalue()) == "zip-doublon"


def test_an_encrypted_zip_says_so():
    flags = struct.pack("<H", 1)
    assert code(patched(ONE, at_central=(8, flags), at_local=(6, flags))) == "zip-chiffre"
    assert code(patched(ONE, at_local=(6, flags))) == "zip-chiffre"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_method_is_refused(method):
    assert code(zipped({"A": b"abc" * 9}, method=method)) == "zip-methode"


def test_a_wrong_check_says_so():
    where = ONE.index(b"0123")
    assert code(ONE[:where] + b"X" + ONE[where + 1 :]) == "zip-crc"


def test_a_cut_zip_says_so():
    for length in (10, len(ONE) // 2, len(ONE) - 1):
        assert code(ONE[:length]) == "zip-tronque"
    deflated = bytearray(zipped({"A": bytes(range(256)) * 4}))
    deflated[31] |= 6  # a block of the fourth kind, which does not exist
    assert code(bytes(deflated)) == "zip-tronque"


def test_what_stands_before_or_after_is_refused():
    assert code(b"MZ" + ONE) == "zip-illisible"
    assert code(ONE + b"tail") == "zip-illisible"
    assert code(b"%PDF-1.4\n") == "zip-illisible"


def test_a_name_that_differs_in_the_two_directories_is_refused():
    assert code(ONE.replace(b"A.XML", b"B.XML", 1)) == "zip-illisible"


def test_a_huge_directory_is_not_walked():
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 0, 0, 0)
    assert code(end) == "zip-bombe"
