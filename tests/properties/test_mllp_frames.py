"""Whatever comes on the HL7 v2 port: any split gives the same frames, any bytes an answer or silence, never an end."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import hl7
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.hl7v2 import outcome, segments, translate
from gateway.hl7v2.mllp import Framer
from gateway.model.store import utcnow
from tests import hl7_samples as samples

LIMIT = 64
STREAMS = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"\x0bMSH|^~\\&|\x1c\r", b"\x0b" + b"x" * 80 + b"\x1c\r"]),
    ),
    max_size=12,
).map(b"".join)


def frames(framer: Framer, chunks: Iterator[bytes]) -> list[tuple[bytes, bool]]:
    return [(frame.content, frame.whole) for chunk in chunks for frame in framer.feed(chunk)]


@given(STREAMS, st.lists(st.integers(0, 200), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_frames(stream: bytes, cuts: list[int]) -> None:
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = (stream[begin:end] for begin, end in itertools.pairwise(at))
    whole, split = Framer(LIMIT), Framer(LIMIT)
    assert frames(whole, iter([stream])) == frames(split, pieces)
    assert (whole.open, whole.stray) == (split.open, split.stray)


@given(STREAMS)
@settings(max_examples=300, deadline=None)
def test_frames_are_what_a_pattern_finds(stream: bytes) -> None:
    """An independent reading: from the last start before an end, to that end."""
    expected = [(one, len(one) <= LIMIT) for one in re.findall(rb"\x0b([^\x0b\x1c]*)\x1c", stream)]
    assert frames(Framer(LIMIT), iter([stream])) == expected


CONTENT = samples.message()
PIECES = [
    b"\r",
    b"\n",
    b"|",
    b"^",
    b"&",
    b"~",
    b"\\",
    b"\x00",
    b"\xff",
    b"MSH|",
    b"OBX|",
    b"\\X00\\",
    b"\xe2\x80\xa8",
    b'"',
]


def answered(content: bytes) -> bytes:
    """What `gateway.hl7v2.intake` does with bytes, without the database."""
    try:
        translate.read(segments.parse(content))
    except GatewayError as error:
        told = outcome.verdict(error)
    else:
        told = outcome.ACCEPTED
    return outcome.ack(segments.head(content), told, utcnow())


def judged(content: bytes) -> None:
    answer = answered(content)
    assert b"\x0b" not in answer
    assert b"\x1c" not in answer
    codec = segments.CHARSETS.get(segments.head(content).charset, "ascii")
    read = hl7.parse(answer.decode(codec))
    assert str(read.segment("MSA")[1]) in {"AA", "AE", "AR"}
    assert len(read) == (2 if str(read.segment("MSA")[1]) == "AA" else 3)


@given(st.binary(max_size=200))
@example(b"MSH|^~\\&|" + b"|" * 20 + b"\xff\r")
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_answered(content: bytes) -> None:
    judged(content)
    judged(b"MSH|^~\\&|" + content)


@given(st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 30), st.sampled_from(PIECES)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_message_of_the_sheet_broken_anywhere_is_answered(breaks: list[tuple[int, int, bytes]]) -> None:
    """The head and tail of the message are broken, where its segments are; the base64 between them is one run."""
    begin = CONTENT.index(b"Base64^") + 7
    end = CONTENT.index(b"|", begin)
    content = CONTENT[:begin] + b"QUJD" + CONTENT[end:]
    for place, length, piece in breaks:
        at = place % len(content)
        content = content[:at] + piece + content[at + length :]
    judged(content)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_text_that_is_escaped_is_read_as_it_was(components: list[str]) -> None:
    escaped = "^".join(outcome._escaped(one) for one in components)
    found = segments.parse(f"MSH|^~\\&||||||||MDM|||2.6||||||UNICODE UTF-8\rPID|||||{escaped}\r".encode())
    pid = found.first("PID")
    assert pid is not None
    assert [pid.component(5, at) for at in range(1, len(components) + 1)] == [one.strip() for one in components]


@pytest.mark.parametrize("mark", ["\\", "|", "^", "&", "~"])
def test_a_delimiter_alone_is_a_text(mark: str) -> None:
    found = segments.parse(f"MSH|^~\\&\rPID|||||{outcome._escaped(mark)}\r".encode()).first("PID")
    assert found is not None
    assert found.component(5) == mark
