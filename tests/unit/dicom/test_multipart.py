"""Bodies described byte by byte, cut at any place, and those that are none."""

import hashlib

import pytest

from gateway.dicom.multipart import MAX_PARTS, Ended, Head, Piece, Reader, media_type
from gateway.errors import InvalidContent

BODY = (
    b"preamble that nobody reads\r\n"
    b"--b=1 \t\r\nContent-Type: application/dicom;\r\n transfer-syntax=1.2\r\nX: y\r\n\r\nfirst\r\n--b\r\n-- b=1"
    b"\r\n--b=1\r\n\r\n\0\r\n\xff\r"
    b"\r\n--b=1\r\nContent-Type: text/plain\r\n\r\n"
    b"\r\n--b=1--\r\nepilogue"
)
PARTS = [
    ({"content-type": "application/dicom; transfer-syntax=1.2", "x": "y"}, b"first\r\n--b\r\n-- b=1"),
    ({}, b"\0\r\n\xff\r"),
    ({"content-type": "text/plain"}, b""),
]


def read(pieces, boundary="b=1", room=None):
    """Read pieces, each in a memory of its own, or all in one that is used again, behind some room."""
    reader, parts, open_part = Reader(boundary), [], None
    memory = bytearray((room or 0) + max(map(len, pieces)) + 3)
    for piece in pieces:
        memory[:] = b"\xee" * len(memory)
        if room is not None:
            memory[room : room + len(piece)] = piece
        for event in reader.feed(piece) if room is None else reader.feed(memory, room, room + len(piece)):
            if isinstance(event, Head):
                open_part = (event.fields, bytearray())
            elif isinstance(event, Piece):
                open_part[1].extend(event.content)
            elif isinstance(event, Ended):
                parts.append((open_part[0], bytes(open_part[1])))
    return reader, parts


def test_the_parts_are_what_stands_between_the_delimiters():
    reader, parts = read([BODY])
    assert (reader.finished, parts) == (True, PARTS)


@pytest.mark.parametrize("room", [None, 0, 3, 40, 200], ids="room {}".format)
@pytest.mark.parametrize("size", range(1, 24))
def test_wherever_it_is_cut(size, room):
    reader, parts = read([BODY[at : at + size] for at in range(0, len(BODY), size)], room=room)
    assert (reader.finished, parts) == (True, PARTS)


def test_a_first_delimiter_may_be_the_very_first_bytes():
    assert read([b"--b\r\n\r\nx\r\n--b--"], "b")[1] == [({}, b"x")]


def test_a_reader_holds_less_than_a_delimiter():
    reader = Reader("b")
    list(reader.feed(b"--b\r\n\r\n"))
    for number in range(64):
        passed = sum(len(event.content) for event in reader.feed(hashlib.shake_256(bytes([number])).digest(65536)))
        assert passed > 65000
        assert len(reader._held) < 8


@pytest.mark.parametrize(
    "body",
    [
        b"x" * 100_000,
        b"--b\r\n" + b"A: " + b"x" * 20_000,
        b"--b\r\nno field\r\n\r\n",
        b"--b\r\n: nothing\r\n\r\n",
        b"--bcd\r\n\r\nx",
        b"--b" + b" " * 300,
        b"--b\r\n\r\n\r\n" * (MAX_PARTS + 2),
    ],
)
def test_what_is_no_such_body_is_refused(body):
    with pytest.raises(InvalidContent) as refusal:
        read([body], "b")
    assert refusal.value.code == "multipart"


def test_a_body_that_is_cut_short_is_not_finished():
    for end in range(len(BODY) - len(b"--\r\nepilogue")):
        assert not read([BODY[:end]])[0].finished


@pytest.mark.parametrize("boundary", ["", "x" * 201, "a\r\nb", "é", "b "])
def test_a_bad_boundary_is_refused(boundary):
    with pytest.raises(InvalidContent):
        Reader(boundary)


def test_media_types():
    assert media_type('Multipart/Related; type="application/dicom"; boundary="a\\"b; c"; Type=x') == (
        "multipart/related",
        {"type": "application/dicom", "boundary": 'a"b; c'},
    )
    assert media_type("application/dicom;transfer-syntax=1.2.840.10008.1.2.1 ; q=0.5")[1] == {
        "transfer-syntax": "1.2.840.10008.1.2.1",
        "q": "0.5",
    }
    assert media_type("") == ("", {})
