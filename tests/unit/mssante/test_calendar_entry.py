"""A meeting for an agenda: its bytes, written by hand from RFC 5545, and what no text in it can do."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from gateway.mssante import calendar_entry
from gateway.rcp.ports import AgendaEntry

PARIS_IN_SUMMER = timezone(timedelta(hours=2))
AT = datetime(2026, 3, 9, 14, 1, tzinfo=timezone(timedelta(hours=1)))


def entry(**more: object) -> AgendaEntry:
    said: dict[str, object] = {
        "uid": "01a1fe12@rcp.example",
        "sequence": 2,
        "starts_at": datetime(2026, 4, 2, 14, 0, tzinfo=PARIS_IN_SUMMER),
        "ends_at": datetime(2026, 4, 2, 16, 0, tzinfo=PARIS_IN_SUMMER),
        "title": "RCP Sein",
        "place": "Salle B, 2e étage ; CHU X",
        "text": "Lien : https://visio.example/s\nCode : 4711",
    }
    return AgendaEntry(**said | more)  # type: ignore[arg-type]


def test_the_very_bytes() -> None:
    assert calendar_entry.render(entry(), AT).decode() == (
        "BEGIN:VCALENDAR\r\n"
        "VERSION:2.0\r\n"
        "PRODID:-//rcp-gateway//RCP//FR\r\n"
        "METHOD:PUBLISH\r\n"
        "BEGIN:VEVENT\r\n"
        "UID:01a1fe12@rcp.example\r\n"
        "DTSTAMP:20260309T130100Z\r\n"
        "SEQUENCE:2\r\n"
        "DTSTART:20260402T120000Z\r\n"
        "DTEND:20260402T140000Z\r\n"
        "SUMMARY:RCP Sein\r\n"
        "LOCATION:Salle B\\, 2e étage \\; CHU X\r\n"
        "DESCRIPTION:Lien : https://visio.example/s\\nCode : 4711\r\n"
        "CLASS:PRIVATE\r\n"
        "END:VEVENT\r\n"
        "END:VCALENDAR\r\n"
    )


@pytest.mark.parametrize(
    "hostile",
    [
        "x\r\nATTENDEE:mailto:a@b.example",
        "x\nEND:VEVENT\nBEGIN:VALARM",
        "x\rURL:https://b.example",
        "x\x0bURL:y",
        "\x00\x07\x7f",
        "\\n\\",
        '; , : "',
    ],
)
def test_no_text_begins_a_property(hostile: str) -> None:
    said = calendar_entry.render(entry(title=hostile, place=hostile, text=hostile, uid=hostile), AT).decode()
    names = [line.partition(":")[0] for line in said.split("\r\n") if line and not line.startswith(" ")]
    assert names == [
        "BEGIN", "VERSION", "PRODID", "METHOD", "BEGIN", "UID", "DTSTAMP", "SEQUENCE", "DTSTART", "DTEND", "SUMMARY",
        "LOCATION", "DESCRIPTION", "CLASS", "END", "END",
    ]  # fmt: skip
    assert not set(said.replace("\r\n", "")) & {chr(n) for n in (*range(9), *range(10, 32), 127)}


def test_long_lines_are_folded_between_characters_and_read_back_whole() -> None:
    text = "é" * 40 + "𝄞" * 30 + "a" * 200
    said = calendar_entry.render(entry(text=text), AT)
    assert max(len(line) for line in said.split(b"\r\n")) == 75
    for line in said.split(b"\r\n"):
        line.decode()  # no character is cut
    assert f"DESCRIPTION:{text}\r\n" in said.replace(b"\r\n ", b"").decode()
