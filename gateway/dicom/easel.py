"""What runs in a drawing process: one piece of work at a time, on one file, within limits.

Started by `gateway.dicom.drawing`, which sends an order and reads an answer: four bytes of length, then MessagePack.

Promises: whatever a file holds, the answer is bytes or a refusal by name; memory and processor time end at the
kernel's limits; nothing is written anywhere, no core is dumped; the process ends with the one that started it.
"""

from __future__ import annotations

import os
import resource
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from gateway import errors

if TYPE_CHECKING:
    from gateway.dicom.frames import Frames

__all__ = ["Answer", "Order", "main", "receive", "send"]

_LENGTH: Final = struct.Struct(">I")


class Order(msgspec.Struct, array_like=True):
    """A piece of work: its name in `WORKS`, the file, its arguments, the seconds of processor that it may take."""

    work: str
    path: str
    arguments: dict[str, Any]
    seconds: float


class Answer(msgspec.Struct, array_like=True):
    """What came of it: bytes, or the kind, code, text and expression of a refusal."""

    content: bytes = b""
    kind: str = ""
    code: str = ""
    text: str = ""
    expression: str | None = None
    media_type: str = ""


def send(out: BinaryIO, message: Order | Answer) -> None:
    """Write one message."""
    content = msgspec.msgpack.encode(message)
    out.write(_LENGTH.pack(len(content)) + content)
    out.flush()


def receive(source: BinaryIO) -> bytes | None:
    """Read one message; None at the end."""
    head = source.read(_LENGTH.size)
    return source.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else None


def _works() -> dict[str, Callable[..., tuple[str, bytes]]]:
    """What can be asked for: each takes a path and arguments, and gives a media type and bytes."""
    from gateway.dicom import deidentify, legible, render, transcode, values
    from gateway.dicom.alike import Alike

    opened = lru_cache(maxsize=4)(Alike().frames)  # a series of frames of one object: its header is read once

    def picture(path: Path, **asked: Any) -> tuple[str, bytes]:
        window, viewport = asked.pop("window"), asked.pop("viewport")
        content = render.render(
            opened(path),
            asked.pop("frame"),
            window=render.Window(*window) if window else None,
            viewport=render.Region(viewport[0], viewport[1], viewport[2] and tuple(viewport[2])) if viewport else None,
            **asked,
        )
        return asked["media_type"], content

    def frame(path: Path, **asked: Any) -> tuple[str, bytes]:
        return "application/octet-stream", render.frame_bytes(opened(path), asked["frame"])

    def document(path: Path, **asked: Any) -> tuple[str, bytes]:
        return legible.document(path, tuple(asked["offered"]))

    def encoded(path: Path, **asked: Any) -> tuple[str, bytes]:
        return asked["media_type"], transcode.encoded_frame(opened(path), asked["frame"], asked["media_type"])

    def transcoded(path: Path, **asked: Any) -> tuple[str, bytes]:
        return "application/dicom", transcode.transcoded(path, asked["transfer_syntax"], asked.get("most"))

    def kept(path: Path, **asked: Any) -> tuple[str, bytes]:
        return "application/octet-stream", opened(path).raw(asked["frame"])

    def value(path: Path, **asked: Any) -> tuple[str, bytes]:
        return "application/octet-stream", values.found(path, asked["place"], asked["most"])

    def copied(path: Path, **asked: Any) -> tuple[str, bytes]:
        del asked["frame"]
        return "application/msgpack", msgspec.msgpack.encode(deidentify.copied(path, **asked))

    return {
        "copied": copied,
        "picture": picture,
        "frame": frame,
        "document": document,
        "encoded": encoded,
        "transcoded": transcoded,
        "kept": kept,
        "value": value,
        **_presenting(opened),
    }


def _presenting(opened: Callable[[Path], Frames]) -> dict[str, Callable[..., tuple[str, bytes]]]:
    """What can be asked of presentation states."""
    from gateway.dicom import presentation, presentation_drawing, render

    state = lru_cache(maxsize=4)(presentation.opened)  # one state for all images of a series

    def presented(path: Path, **asked: Any) -> tuple[str, bytes]:
        viewport = asked.pop("viewport")
        content = presentation_drawing.render(
            opened(path),
            state(Path(asked.pop("beside"))),
            asked.pop("instance"),
            asked.pop("frame"),
            viewport=render.Region(viewport[0], viewport[1]) if viewport else None,
            **asked,
        )
        return asked["media_type"], content

    def references(path: Path, **asked: Any) -> tuple[str, bytes]:
        del asked
        return "application/msgpack", msgspec.msgpack.encode(presentation.references(state(path)))

    return {"presented": presented, "references": references}


def main(memory_bytes: int) -> None:
    """Work until the other end closes."""
    orders = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # decoders print what they think of the bytes
        os.dup2(nothing, number)
    sys.modules["requests"] = None  # type: ignore[assignment]  # pydicom's way to the network: not here, and slow to load
    works = _works()
    for kind, most in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (most, most))
    send(answers, Answer())
    while (content := receive(orders)) is not None:
        order = msgspec.msgpack.decode(content, type=Order)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        most = int(spent.ru_utime + spent.ru_stime + order.seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
        answer = _done(works[order.work], order)
        send(answers, answer)
        if answer.code == "dicom-render-memory":  # what is left of it is nobody's to know
            break


def _done(work: Callable[..., tuple[str, bytes]], order: Order) -> Answer:
    try:
        media_type, content = work(Path(order.path), **order.arguments)
    except errors.GatewayError as error:
        return Answer(kind=type(error).__name__, code=error.code, text=error.text, expression=error.expression)
    except MemoryError:
        return Answer(kind="InvalidContent", code="dicom-render-memory")
    except RecursionError:
        return Answer(kind="InvalidContent", code="dicom-unreadable", text="Objet DICOM illisible.")
    except Exception:  # noqa: BLE001 - libraries raise whatever the bytes led them to
        return Answer(kind="InvalidContent", code="dicom-unreadable", text="Objet DICOM illisible.")
    return Answer(content=content, media_type=media_type)


if __name__ == "__main__":
    main(int(sys.argv[1]))
