"""The messages of spec mssante 3.5 to 3.9, as that sheet types them (`hl7_messages/`), around real documents.

Nothing here is made by the gateway but the documents themselves. One segment a line for reading; on the wire CR.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from gateway.documents import frcp, n1
from gateway.rcp.report_content import Identifier, Replaced
from tests.report_samples import content

_PLACE = "<base64 of the CDA file, one unbroken run>"

_FILES = Path(__file__).parent / "hl7_messages"


def _typed(name: str) -> str:
    return (_FILES / f"{name}.er7").read_text(encoding="utf-8")


MDM, ORU, LPS = (_typed(name) for name in ("mdm-t02", "oru-r01", "lps-mdm-t02"))
#: What a replacement and a deletion change.
REPLACEMENT, DELETION = _typed("mdm-t10-changes"), _typed("mdm-t04-changes")
#: The acknowledgements of 3.7: accepted, a field missing, a patient unknown.
ACKS = tuple(one.strip() for one in _typed("acks").split("\n\n"))


@cache
def cda(version: int = 1) -> bytes:
    """The report of the fixtures, whose patient and identifier are those of the sheet; a later version replaces it."""
    facts = content()
    root = facts.document_id.root.rpartition(".")[0]
    replaced = Replaced(
        document_id=Identifier(f"{root}.{version - 1}"), version=version - 1, validated_at=facts.written_at
    )
    return frcp.render(
        replace(
            facts,
            version=version,
            document_id=Identifier(f"{root}.{version}"),
            replaces=replaced if version > 1 else None,
        )
    )


@cache
def envelope() -> bytes:
    """The same report as a PDF in the envelope of a CDA (N1)."""
    return n1.render(content(), b"%PDF-1.4 un document enveloppe")


def encoded(document: bytes) -> str:
    """A document as OBX-5.5 has it."""
    return b64encode(document).decode()


def text(message: str = MDM, *, document: bytes | None = None, changed: str = "", **fields: str) -> str:
    """A message of the sheet around a document, by default the first version.

    ``changed`` are segments that take the place of the first of their name; ``fields`` set one field of the first
    segment of a name: ``TXA_13="…"``.
    """
    lines = message.strip().split("\n")
    for line in changed.strip().split("\n"):
        index = next((at for at, one in enumerate(lines) if line and one[:3] == line[:3]), None)
        if index is not None:
            lines[index] = line
    for name, value in fields.items():
        segment, number = name.split("_")
        index = next(at for at, one in enumerate(lines) if one[:3] == segment)
        parts = lines[index].split("|")
        place = int(number) - (segment == "MSH")
        parts += [""] * (place + 1 - len(parts))
        parts[place] = value
        lines[index] = "|".join(parts)
    return "\n".join(lines).replace(_PLACE, encoded(cda() if document is None else document))


def wire(text: str, codec: str = "utf-8") -> bytes:
    """A message as it travels inside its frame."""
    return "".join(f"{line}\r" for line in text.split("\n")).encode(codec)


def message(base: str = MDM, **more: object) -> bytes:
    """`text`, as it travels."""
    return wire(text(base, **more))  # type: ignore[arg-type]  # as `text` takes them


def without(text: str, start: str) -> str:
    """A message without the segments that begin so."""
    return "\n".join(line for line in text.split("\n") if not line.startswith(start))


def replacement(version: int = 2, **more: str) -> bytes:
    """The MDM^T10 of the sheet around the second version."""
    return message(changed=REPLACEMENT, document=cda(version), **more)


def deletion(version: int = 2, **more: str) -> bytes:
    """The MDM^T04 of the sheet around the document to delete."""
    return message(changed=DELETION, document=cda(version), **more)


def fields(ack: bytes) -> dict[str, list[str]]:
    """The segments of an acknowledgement, cut by hand: name → fields, numbered as HL7 numbers them."""
    found: dict[str, list[str]] = {}
    for line in re.split("\r", ack.decode().rstrip("\r")):
        parts = line.split("|")
        found[parts[0]] = ["MSH", "|", *parts[1:]] if parts[0] == "MSH" else parts
    return found


def said(ack: bytes) -> tuple[str, str, str, str]:
    """MSA-1, and of ERR the location, the condition and the integration error; empty where nothing is said."""
    found = fields(ack)
    err = found.get("ERR", [""] * 6) + [""] * 6
    return found["MSA"][1], err[2], err[3].partition("^")[0], err[5].partition("^")[0]
