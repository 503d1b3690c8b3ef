"""Frames: what stands between start and end, however the bytes come."""

from __future__ import annotations

import pytest

from gateway.hl7v2.mllp import Frame, Framer


def frames(*chunks: bytes, limit: int = 100) -> tuple[list[Frame], Framer]:
    framer = Framer(limit)
    return [frame for chunk in chunks for frame in framer.feed(chunk)], framer


@pytest.mark.parametrize(
    ("chunks", "contents"),
    [
        ((b"\x0bun\x1c\r",), [b"un"]),
        ((b"\x0bun\x1c\r\x0bdeux\x1c\r",), [b"un", b"deux"]),
        ((b"\x0b", b"u", b"n", b"\x1c", b"\r"), [b"un"]),
        ((b"\r\n\x0bun\x1c\r\n\n",), [b"un"]),
        ((b"\x0bun\x1c\x0bdeux\x1c",), [b"un", b"deux"]),  # without the carriage return
        ((b"\x0b\x1c\r",), [b""]),
        ((b"bruit\x0bun\x1c\r",), [b"un"]),
        ((b"\x0bcoup\xc3\xa9\x0bun\x1c\r",), [b"un"]),  # it began anew
        ((b"\x0bsans fin",), []),
        ((b"rien",), []),
    ],
)
def test_frames_are_cut_out_of_the_stream(chunks, contents):
    found, _ = frames(*chunks)
    assert [(one.content, one.whole) for one in found] == [(one, True) for one in contents]


def test_a_frame_over_the_limit_is_read_to_its_end_and_the_next_one_is_taken():
    found, _ = frames(b"\x0b" + b"a" * 101 + b"\x1c\r\x0b" + b"b" * 100 + b"\x1c\r")
    assert [(one.content[:3], one.whole) for one in found] == [(b"aaa", False), (b"b" * 3, True)]


def test_of_a_frame_without_end_little_is_held():
    framer = Framer(1000)
    assert list(framer.feed(b"\x0bMSH" + b"a" * 500)) == []
    for _ in range(1000):
        assert list(framer.feed(b"a" * 65536)) == []
    assert framer.open
    assert len(framer._held or b"") <= 16 * 1024
    [frame] = framer.feed(b"\x1c")
    assert (frame.content[:4], frame.whole, framer.open) == (b"MSHa", False, False)


def test_bytes_outside_frames_are_counted_line_ends_are_not():
    _, framer = frames(b"\r\n\r\n")
    assert framer.stray == 0
    _, framer = frames(b"GET / HTTP/1.1\r\n", b"\r\n")
    assert framer.stray == 14
    _, framer = frames(b"bruit\x0bun\x1c\r")
    assert framer.stray == 0
