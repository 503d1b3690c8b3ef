"""An object, or a frame, in another transfer syntax than it is kept in. Runs where decoders run: `gateway.dicom.easel`.

Promises: an object keeps every attribute and its UIDs; its pixels keep their values (lossless targets only), a colour
space that a decoder changes is named as it became. A frame as JPEG is baseline, of eight bits, and so not for
diagnosis; as PNG it has every bit. Nothing is written.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from gateway.dicom.frames import Decoded, Frames
from gateway.errors import InvalidContent, Unsupported

__all__ = ["encoded_frame", "transcoded"]

# Bytes of one number, of the value types that are kept as they stand in the file [PS3.5 6.2].
_WORDS: Final = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
#: Bits that a number of gray pixels stands in.
_WHOLE: Final = frozenset({8, 16, 32})
_JPEG_QUALITY: Final = 90


def transcoded(path: Path, transfer_syntax: str, most: int | None = None) -> bytes:
    """Write an object in another transfer syntax.

    Parameters
    ----------
    most
        Bytes that it may become.

    Raises
    ------
    Unsupported
        ``not-acceptable``: no decoder or encoder for it.
    InvalidContent
        ``dicom-pixels``: pixels that cannot be decoded. ``dicom-too-large``
    """
    target = UID(transfer_syntax)
    ds = pydicom.dcmread(path)
    source = ds.file_meta.TransferSyntaxUID
    try:
        if source.is_compressed and not source.is_deflated and "PixelData" in ds:
            _decompressed(ds, path)
        elif source == ExplicitVRBigEndian:
            _turned(ds)
        if target.is_compressed and not target.is_deflated and "PixelData" in ds:
            ds.compress(target, generate_instance_uid=False)
    except (InvalidContent, MemoryError):
        raise
    # pydicom's own words for a syntax that it does not know, and for one of which no plugin is installed.
    except (NotImplementedError, RuntimeError) as error:
        raise _unoffered() from error
    except Exception as error:
        raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.") from error
    ds.file_meta.TransferSyntaxUID = target
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    if most is not None and out.tell() > most:
        raise InvalidContent("dicom-too-large", f"Objet de plus de {most} octets une fois converti.")
    return out.getvalue()


def _decompressed(ds: Dataset, path: Path) -> None:
    """Decompress as frames are, which is more than the library does (JPEG of 12 bits); colours are the library's."""
    frames = Frames(path)
    if frames.samples > 1 or frames.allocated not in _WHOLE:
        ds.decompress(generate_instance_uid=False)
        return
    whole = bytearray()
    for one in frames.every():
        if one.values.dtype.itemsize * 8 != frames.allocated:
            raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.")
        whole += np.ascontiguousarray(one.values).data
    whole += bytes(len(whole) % 2)
    ds.PixelData = bytes(whole)
    ds["PixelData"].VR = "OB" if frames.allocated == 8 else "OW"
    ds["PixelData"].is_undefined_length = False
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _turned(ds: Dataset) -> None:
    """Turn the bytes of the numbers that the library keeps as they stand."""
    for element in ds.iterall():
        size = _WORDS.get(element.VR)
        if element.tag == 0x7FE00010 and element.VR == "OW" and int(ds.get("BitsAllocated") or 16) == 32:
            size = 4
        if size and isinstance(element.value, bytes):
            whole = len(element.value) // size * size
            element.value = np.frombuffer(element.value[:whole], f">u{size}").astype(f"<u{size}").tobytes()


def encoded_frame(frames: Frames, frame: int, media_type: str) -> bytes:
    """Encode one frame as an image of another kind than it is kept as.

    Raises
    ------
    As `transcoded`; ``not-acceptable`` also for more bits than the kind holds.
    """
    decoded = frames.decoded(frame)
    return _ENCODERS[media_type](frames, decoded)


def _picture(decoded: Decoded, kind: str, **options: Any) -> bytes:
    values = decoded.values
    deep = values.dtype.itemsize > 1 and decoded.bits > 8
    if decoded.bits == 0 or values.dtype.itemsize > 2 or (deep and (kind == "JPEG" or values.ndim == 3)):
        raise _unoffered()
    if decoded.interpretation.startswith("YBR") and values.ndim == 3:
        values = np.asarray(Image.fromarray(values.astype(np.uint8), "YCbCr").convert("RGB"))
    # Signed numbers leave as the words that they stand in.
    values = values.view(np.uint16) if deep else values.astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(out, kind, **options)
    return out.getvalue()


def _jpeg(_: Frames, decoded: Decoded) -> bytes:
    return _picture(decoded, "JPEG", quality=_JPEG_QUALITY)


def _png(_: Frames, decoded: Decoded) -> bytes:
    return _picture(decoded, "PNG", compress_level=3)


def _lossless(syntax: UID) -> Callable[[Frames, Decoded], bytes]:
    def encode(frames: Frames, decoded: Decoded) -> bytes:
        encoder = get_encoder(syntax)
        if decoded.bits == 0 or not encoder.is_available:
            raise _unoffered()
        try:
            encoded: bytes = encoder.encode(
                np.ascontiguousarray(decoded.values),
                rows=frames.rows,
                columns=frames.columns,
                samples_per_pixel=frames.samples,
                number_of_frames=1,
                bits_allocated=decoded.values.dtype.itemsize * 8,
                bits_stored=decoded.bits,
                pixel_representation=int(decoded.values.dtype.kind == "i"),
                photometric_interpretation=decoded.interpretation,
                planar_configuration=0,
            )
        except MemoryError:
            raise
        except Exception as error:
            raise _unoffered() from error
        return encoded

    return encode


_ENCODERS: Final[dict[str, Callable[[Frames, Decoded], bytes]]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/jp2": _lossless(JPEG2000Lossless),
    "image/dicom-rle": _lossless(RLELossless),
}


def _unoffered() -> Unsupported:
    return Unsupported("not-acceptable", "Cet objet ne se convertit pas dans le format demandé.", expression="Accept")
