"""A meeting as a file for an agenda [RFC 5545].

Promises: pure; lines end with CRLF and have 75 octets at most, no character is cut; instants are UTC, which every
agenda shows in its reader's own zone; nothing of what is written can begin a property of its own. It is published and
invites nobody [RFC 5546 §3.2.1]: an agenda that answered by itself would write to a mailbox that reads answers to
notifications. Not promised: that the meeting stays when it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from gateway.rcp.ports import AgendaEntry

__all__ = ["FILENAME", "MEDIA_TYPE", "render"]

FILENAME: Final = "reunion.ics"
MEDIA_TYPE: Final = "text/calendar"
_LINE_OCTETS: Final = 75
_ESCAPED: Final = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": None})


def render(entry: AgendaEntry, at: datetime) -> bytes:
    """Give the bytes of one meeting, as it stood at an instant."""
    lines = (
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//rcp-gateway//RCP//FR",
        "METHOD:PUBLISH",
        "BEGIN:VEVENT",
        f"UID:{_text(entry.uid)}",
        f"DTSTAMP:{_instant(at)}",
        f"SEQUENCE:{entry.sequence}",
        f"DTSTART:{_instant(entry.starts_at)}",
        f"DTEND:{_instant(entry.ends_at)}",
        f"SUMMARY:{_text(entry.title)}",
        f"LOCATION:{_text(entry.place)}",
        f"DESCRIPTION:{_text(entry.text)}",
        "CLASS:PRIVATE",
        "END:VEVENT",
        "END:VCALENDAR",
    )
    return "".join(_folded(line) for line in lines).encode()


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _text(said: str) -> str:
    # What no text may hold [RFC 5545 §3.1] is left out; a line break is written as two characters.
    plain = "".join(one for one in said if one in "\n\t" or (one >= " " and one != "\x7f"))
    return plain.translate(_ESCAPED)


def _folded(line: str) -> str:
    """Break a line between characters; each further part begins with a space."""
    parts, octets = [""], 0
    for one in line:
        size = len(one.encode())
        if octets + size > _LINE_OCTETS:
            parts.append(" ")
            octets = 1
        parts[-1] += one
        octets += size
    return "\r\n".join(parts) + "\r\n"
