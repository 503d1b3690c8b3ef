"""The reader: what frames carry is read whatever ends its segments, in the character set that it announces."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.errors import InvalidContent
from gateway.hl7v2 import segments
from tests import hl7_samples as samples

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

HEAD = "MSH|^~\\&|APPLI|CH-EXEMPLE|PFI|CH-EXEMPLE|20261126183005+0100||MDM^T02^MDM_T02|N-1|T|2.6|||||FRA|"
REST = "|||2.1^CISIS_CDA_HL7_V2\rPID|||1^^^A&1.2&ISO||ŒUVRÉ^€\rZZZ|à nous|deux\r"


def read(charset: str = "UNICODE UTF-8", codec: str = "utf-8", rest: str = REST) -> segments.Message:
    return segments.parse((HEAD + charset + rest).encode(codec))


def refused(content: bytes) -> tuple[str, str | None]:
    with pytest.raises(InvalidContent) as error:
        segments.parse(content)
    return error.value.code, error.value.expression


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [("UNICODE UTF-8", "utf-8", "ŒUVRÉ^€"), ("8859/15", "iso8859_15", "ŒUVRÉ^€"), ("8859/1", "latin-1", "OEUVRÉ^E")],
)
def test_h11_each_character_set_is_read_as_announced(charset, codec, text):
    found = read(charset, codec, REST.replace("ŒUVRÉ^€", text))
    assert found.first("PID").raw(5) == text
    assert found.notes == ()


@pytest.mark.parametrize("charset", ["", "ASCII"])
def test_x28_without_a_character_set_it_is_utf_8_and_strictly(charset):
    assert read(charset).first("PID").raw(5) == "ŒUVRÉ^€"
    assert refused((HEAD + charset + REST).encode("iso8859_15")) == ("hl7-octets", "MSH^1^18")


def test_bytes_that_are_not_in_the_announced_set_are_refused_and_so_is_a_set_that_nobody_offers():
    assert refused((HEAD + "UNICODE UTF-8" + REST).encode("iso8859_15")) == ("hl7-octets", "MSH^1^18")
    assert refused((HEAD + "UNICODE UTF-32" + REST).encode()) == ("hl7-jeu-de-caracteres", "MSH^1^18")


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_x29_any_line_end_and_none_after_the_last_segment(end, last):
    content = (HEAD + REST).replace("\r", end)
    content = content if last else content.rstrip("\r\n")
    found = segments.parse(content.encode())
    assert [one.name for one in found.segments] == ["MSH", "PID", "ZZZ"]
    assert found.segments[-1].raw(2) == "deux"


def test_x29_two_messages_in_one_frame_are_refused():
    two = samples.message() + samples.message()
    assert refused(two) == ("hl7-plusieurs-messages", "MSH^2")
    assert segments.head(two).control_id == "RCP-000101"  # the first is answered


@pytest.mark.parametrize(
    "content", [b"", b"\r", b"MSH", b"MSH|", b"PID|||1\rMSH|^~\\&|", b"{}", b"\xff\xfeM\x00S\x00H\x00"]
)
def test_what_begins_with_no_msh_is_refused(content):
    assert refused(content) == ("hl7-sans-msh", "MSH^1")
    assert segments.head(content).kind == "illisible"


def test_a_single_segment_is_no_message():  # features B7
    assert refused((HEAD + "||||").encode())[0] == "hl7-un-seul-segment"


def test_a_byte_order_mark_is_passed_over():  # features B7
    assert segments.parse(b"\xef\xbb\xbf" + (HEAD + REST).encode()).head.control_id == "N-1"


@pytest.mark.parametrize("marks", ["^~\\", "^^\\&", "A~\\&", "^~ &"])
def test_separators_that_are_none_are_refused(marks):
    assert refused((HEAD + REST).replace("^~\\&", marks, 1).encode())[0] == "hl7-separateurs"


def test_other_separators_serve_as_well():
    content = "MSH*:+?%*A:1.2:ISO*B*C*D*2026**MDM:T02*N-1*T*2.6\rPID***1:::X%1.2%ISO+2**A?S?B:C\r"
    found = segments.parse(content.encode())
    pid = found.first("PID")
    assert (found.head.kind, found.head.control_id, found.head.parties[0]) == ("MDM^T02", "N-1", ("A", "1.2", "ISO"))
    assert [pid.of(one, 1) for one in pid.repetitions(3)] == ["1", "2"]
    assert (pid.component(3, 4, 2), pid.component(5), pid.component(5, 2)) == ("1.2", "A:B", "C")


def test_a_typographic_tilde_is_a_tilde():  # fhir-fr 5.7: official ORU
    found = segments.parse((HEAD + REST).replace("^~", "^˜", 1).replace("1^^^A&1.2&ISO", "1˜2~3").encode())
    assert len(found.first("PID").repetitions(3)) == 3
    assert found.notes == ("msh-18-absent", "msh-2-typographique")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f", "a|b^c&d~e\\f"),
        ("\\XC3A9\\", "é"),
        ("ligne\\.br\\suite", "ligne\nsuite"),
        ("\\H\\gras\\N\\", "gras"),
        ("\\XZZ\\", "\\XZZ\\"),
        ("\\Q\\ \\", "\\Q\\ \\"),
        ("C:\\", "C:\\"),
    ],
)
def test_escapes_are_undone_and_what_is_none_stays(said, meant):
    assert read(rest=f"\rPID|||||{said}\r").first("PID").component(5) == meant.strip()


def test_participations_and_unknown_segments_are_kept():  # features B5: hl7apy drops them
    found = segments.parse(samples.message())
    assert [one.component(4) for one in found.all("PRT")] == ["SB", "RCT", "RCT", "REPLY"]
    assert [one.component(15, 4) for one in found.all("PRT")] == [
        "",
        "camille.lafont@medecin.mssante.fr",
        "gynecologie@ch-exemple.mssante.fr",
        "secretariat-rcp@ch-exemple.mssante.fr",
    ]
    assert read().first("ZZZ").raw(1) == "à nous"


def test_lines_that_begin_no_segment_belong_to_the_one_above():
    found = read(rest="\rOBX|1|ED|X||^a^b^Base64^QUJD\rREVG\nR0g=||||||F\rNTE|1\r")
    assert [one.name for one in found.segments] == ["MSH", "OBX", "NTE"]
    assert found.first("OBX").component(5, 5).split() == ["QUJD", "REVG", "R0g="]
    assert found.first("OBX").component(11) == "F"


def test_too_many_segments_are_refused_by_name():
    assert refused((HEAD + REST + "NTE|1\r" * 2000).encode())[0] == "hl7-trop-de-segments"
    assert refused((HEAD + REST).encode() + b"\r" * 500_000)[0] == "hl7-trop-de-segments"


@pytest.mark.parametrize("piece", ["|", "~", "^", "&", "\\F\\", "\\"])
def test_a_field_of_many_parts_costs_little(piece):
    content = (HEAD + f"\rPID|||{piece * 500_000}\r").encode()
    tracemalloc.start()
    try:
        found = segments.parse(content).first("PID")
        assert len(found.repetitions(3)) <= segments.PARTS_MAX + 1
        found.component(3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * len(content)


def test_the_head_holds_no_control_character_and_nothing_without_end():
    found = segments.head(f"MSH|^~\\&|A\x00\x1c|B|||||MDM^T02|{'9' * 5000}\x0b|T|2.6".encode())
    assert (found.sender, len(found.control_id)) == ("A|B", 227)
