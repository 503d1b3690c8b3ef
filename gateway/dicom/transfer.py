"""In which form an object, or a frame of it, leaves: what a request accepts against what is kept `[PS3.18 8.7]`.

Promises: what is asked for by name is what is answered, or nothing is (406); ``transfer-syntax=*``, or no wish at all,
gives what is kept, byte for byte; a wish without a transfer syntax means the standard's default for its media type
`[PS3.18 8.7.3]`. Decides only: `gateway.dicom.transcode` converts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from starlette.requests import Request

from gateway.dicom.asking import asked, not_acceptable, ranges
from gateway.dicom.multipart import media_type

__all__ = ["DICOM", "MEDIA_TYPES", "OCTETS", "Form", "frame_form", "object_form"]

DICOM: Final = "application/dicom"
OCTETS: Final = "application/octet-stream"
KEPT: Final = "*"
_JPEG: Final = "1.2.840.10008.1.2.4."

#: Syntaxes that an object is converted to, and those that it is converted from: what our decoders read.
_TARGETS: Final = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless})
_UNCOMPRESSED: Final = frozenset(
    {ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)
_READABLE: Final = _UNCOMPRESSED | {
    RLELossless,
    *(_JPEG + end for end in ("50", "51", "57", "70", "80", "81", "90", "91", "201", "202", "203")),
}
#: Media type of a compressed frame → the syntaxes that it stands for, the default first `[PS3.18 table 8.7.3-2]`.
MEDIA_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "image/jpeg": tuple(_JPEG + end for end in ("70", "50", "51", "57")),
    "image/jls": (_JPEG + "80", _JPEG + "81"),
    "image/jp2": (_JPEG + "90", _JPEG + "91"),
    "image/jpx": (_JPEG + "92", _JPEG + "93"),
    "image/jphc": tuple(_JPEG + end for end in ("201", "202", "203")),
    "image/dicom-rle": (str(RLELossless),),
    "video/mpeg": (_JPEG + "100", _JPEG + "101"),
    "video/mp4": tuple(_JPEG + end for end in ("102", "103", "104", "105", "106")),
}
#: What a frame is encoded as when it is not kept so; None of JPEG beside baseline, whose encoder is of eight bits.
_ENCODED: Final = {
    "image/jpeg": _JPEG + "50",
    "image/jp2": str(JPEG2000Lossless),
    "image/dicom-rle": str(RLELossless),
    "image/png": "",
}


@dataclass(frozen=True, slots=True)
class Form:
    """How something leaves.

    Parameters
    ----------
    media_type
        Of it, or of each part.
    transfer_syntax
        `KEPT`, or what it is converted to.
    parts
        Whether it is a part of ``multipart/related``.
    """

    media_type: str
    transfer_syntax: str
    parts: bool


@dataclass(frozen=True, slots=True)
class _Wish:
    """One range of ``Accept``."""

    kind: str
    parts: bool
    syntax: str | None

    def __contains__(self, kind: str) -> bool:
        """Whether a media type is within the range."""
        return self.kind in ("*/*", kind) or (self.kind.endswith("/*") and kind.startswith(self.kind[:-1]))


@lru_cache(maxsize=256)
def _wishes(said_types: str) -> tuple[_Wish, ...]:
    """Read the ranges, the preferred first; of ``multipart/related``, the type of its parts."""
    ranked: list[tuple[float, int, _Wish]] = []
    for place, text in enumerate(ranges(said_types)):
        kind, said = media_type(text)
        quality = said.get("q", "1")
        if not re.fullmatch(r"[01](?:\.[0-9]{0,3})?", quality) or float(quality) == 0:
            continue
        parts = kind in ("multipart/related", "multipart/*")
        wish = _Wish(said.get("type", "*/*").lower() if parts else kind, parts, said.get("transfer-syntax"))
        ranked.append((-float(quality), place, wish))
    return tuple(wish for _, _, wish in sorted(ranked, key=lambda one: one[:2]))


def object_form(request: Request, kept: set[str], *, single: bool) -> Form:
    """Choose how objects leave.

    Parameters
    ----------
    kept
        Transfer syntaxes that they are kept in.
    single
        Whether it is one object, which may leave without a part around it.

    Raises
    ------
    Unsupported
        ``not-acceptable``.
    """
    for wish in _wishes(asked(request)):
        if DICOM not in wish or not (wish.parts or single or wish.kind == "*/*"):
            continue
        parts = wish.parts or wish.kind in ("*/*", "application/*")
        syntax = wish.syntax or (str(ExplicitVRLittleEndian) if wish.kind == DICOM else KEPT)
        if syntax == KEPT or kept == {syntax}:
            return Form(DICOM, KEPT, parts)
        if syntax in _TARGETS and kept <= _READABLE:
            return Form(DICOM, syntax, parts)
    raise not_acceptable(*([DICOM] if single else []), f'multipart/related; type="{DICOM}"')


def frame_form(request: Request, kept: str, *, single: bool) -> Form:
    """Choose how frames leave: as numbers, or compressed.

    Raises
    ------
    Unsupported
        ``not-acceptable``.
    """
    for wish in _wishes(asked(request)):
        alone = not wish.parts and wish.kind != "*/*"
        if alone and not single:
            continue
        if OCTETS in wish and wish.syntax in (None, KEPT, str(ExplicitVRLittleEndian)) and kept in _READABLE:
            return Form(OCTETS, str(ExplicitVRLittleEndian), not alone)
        for kind, syntaxes in MEDIA_TYPES.items():
            if kind in wish and kept in syntaxes and wish.syntax in (None, KEPT, kept):
                return Form(kind, KEPT, not alone)
        kind = wish.kind
        if kind in _ENCODED and wish.syntax in (None, _ENCODED[kind]) and kept in _READABLE:
            return Form(kind, _ENCODED[kind], not alone)
    there = [kind for kind, syntaxes in MEDIA_TYPES.items() if kept in syntaxes]
    raise not_acceptable(*([OCTETS, *_ENCODED] if kept in _READABLE else []), *there)
