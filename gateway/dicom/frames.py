"""One object → its frames, each read by itself.

Promises: a frame of an object of any size costs the memory of that frame, not the object's; what the object says of its
pixels is judged before anything is allocated for them; every layout of the standard is understood, unused bits, planes
and retired layouts included. Decodes what a decoder under a free licence reads (docs/adr/0009).
Does not draw: `gateway.dicom.render` does. Does not protect the process from a decoder: `gateway.dicom.drawing` does.

Sources: `[PS3.5 8]` layouts, `[PS3.5 A.4]` encapsulation, `[PS3.3 C.7.6.3]` attributes.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

from gateway.dicom import jpeg_values
from gateway.errors import InvalidContent, NotFound, Unsupported

__all__ = ["MAX_SAMPLES", "Decoded", "Frames", "number", "said"]

#: Rows × columns × samples of one frame.
MAX_SAMPLES: Final = 64 << 20

_DEFER_BYTES: Final = 64 * 1024
_NATIVE: Final = frozenset(
    {ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian}
)
#: What libjpeg-turbo decodes, in half of the time of pydicom's decoders.
_LOSSLESS: Final = frozenset({JPEGLossless, JPEGLosslessSV1})
#: Element → kind of its numbers; None: as Bits Allocated and Pixel Representation say.
_PIXELS: Final[dict[int, str | None]] = {0x7FE00010: None, 0x7FE00008: "f4", 0x7FE00009: "f8"}
_ALLOCATED: Final = frozenset({1, 8, 16, 32, 64})
#: Colour spaces whose chrominance stands once for several pixels → samples a pixel, twice.
_SHARED_CHROMINANCE: Final = {"YBR_FULL_422": 4, "YBR_PARTIAL_422": 4, "YBR_PARTIAL_420": 3}
#: Colour spaces that the decoders' library knows; of another it is told the one that is changed least.
_KNOWN: Final = frozenset(PhotometricInterpretation)


def said(ds: Dataset, keyword: str) -> Any:
    """Read an attribute; None when it is absent, empty, or cannot be read."""
    try:
        value = ds.get(keyword)
        if isinstance(value, pydicom.multival.MultiValue) and not len(value):
            return None
    except Exception:  # noqa: BLE001 - what the library raises depends on what the bytes led it to
        return None
    return None if value in (None, "") else value


def number(ds: Dataset, keyword: str, default: int) -> int:
    """Read the first value of an attribute as a whole number."""
    value = said(ds, keyword)
    try:
        return int(value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) else value)
    except (TypeError, ValueError, OverflowError):
        return default


@dataclass(frozen=True, slots=True)
class Decoded:
    """One frame as numbers.

    Attributes
    ----------
    values
        Rows × columns, and samples where there are several.
    interpretation
        What the samples mean `[PS3.3 C.7.6.3.1.2]`, which a decoder may have changed.
    bits
        Bits that a value has, 0 for floating point.
    words
        The words that the values stood in, with what stood in their other bits; None when they are gone.
    """

    values: NDArray[Any]
    interpretation: str
    bits: int
    words: NDArray[Any] | None = None


class Frames:
    """An object whose pixels stay in its file.

    Attributes
    ----------
    header
        Everything before the pixels. Long values are read when they are asked for.
    made
        What was made of the header, by whoever made it; shared with the objects that say the same (`at`).

    Parameters
    ----------
    header
        Of an object without its pixels, from who read it (`gateway.dicom.alike`); `at` says where they are.

    Raises
    ------
    InvalidContent
        Not a DICOM object, or a picture that says of itself what cannot be.
    """

    def __init__(self, path: Path, header: Dataset | None = None) -> None:
        self._path = path
        self._content: bytes | None = None
        self.made: dict[Any, Any] = {}
        try:
            self.header: Dataset = self._read() if header is None else header
            self.syntax = self.header.file_meta.TransferSyntaxUID
        except Exception as error:
            raise InvalidContent("dicom-unreadable", "Objet DICOM illisible.") from error
        ds = self.header
        self.rows, self.columns = number(ds, "Rows", 0), number(ds, "Columns", 0)
        self.samples = max(number(ds, "SamplesPerPixel", 1), 1)
        self.count = max(number(ds, "NumberOfFrames", 1), 1)
        self.allocated = number(ds, "BitsAllocated", 8)
        self.stored = min(max(number(ds, "BitsStored", self.allocated), 1), self.allocated)
        self.signed = number(ds, "PixelRepresentation", 0) == 1
        usual = "MONOCHROME2" if self.samples == 1 else "RGB"
        self.interpretation = str(said(ds, "PhotometricInterpretation") or usual).strip().upper()

    def at(self, path: Path, place: int, head: bytes) -> Frames:
        """Give another object that says the same of its pixels; they begin at ``place``, with these twelve bytes."""
        other = copy.copy(self)
        other._path = path  # noqa: SLF001 - one of us
        other._find(place, head, self.syntax)  # noqa: SLF001
        return other

    def _read(self) -> Dataset:
        with self._path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, defer_size=_DEFER_BYTES)
            place, head = file.tell(), file.read(12)
        syntax = header.file_meta.TransferSyntaxUID
        if syntax == DeflatedExplicitVRLittleEndian:  # was inflated whole, and its places are not the file's
            self._deflated()
        else:
            self._find(place, head, syntax)
        return header

    def _find(self, place: int, head: bytes, syntax: str) -> None:
        order = "big" if syntax == ExplicitVRBigEndian else "little"
        group, element = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))  # type: ignore[arg-type]
        self._tag = group << 16 | element
        # Some name one syntax and write the other; no even length looks like a type.
        implicit = head[4:6] not in (b"OB", b"OW", b"UN", b"OF", b"OD")
        self._vr = "OW" if implicit else head[4:6].decode("latin-1")
        self._start = place + (8 if implicit else 12)
        self._length = int.from_bytes(head[4:8] if implicit else head[8:12], order)  # type: ignore[arg-type]

    def _deflated(self) -> None:
        whole = pydicom.dcmread(self._path)
        self._tag = next((tag for tag in _PIXELS if tag in whole), 0)
        self._content = bytes(whole[self._tag].value or b"") if self._tag else b""
        self._vr, self._start, self._length = "OW", 0, len(self._content)

    @property
    def native(self) -> bool:
        """Whether the pixels stand uncompressed."""
        return self.syntax in _NATIVE

    def judge(self, frame: int) -> None:
        """Refuse what has no such picture, before anything is read for it.

        Raises
        ------
        Unsupported, InvalidContent, NotFound
        """
        if not self.rows or not self.columns or self._tag not in _PIXELS:
            raise Unsupported("dicom-no-pixels", "Cet objet ne contient pas d’image.")
        if self.rows * self.columns * self.samples > MAX_SAMPLES:
            raise InvalidContent("dicom-too-large", f"Image de plus de {MAX_SAMPLES} échantillons.")
        if self.allocated not in _ALLOCATED or self.rows < 0 or self.columns < 0:
            raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.")
        if not 1 <= frame <= self.count:
            raise NotFound("inconnu", "Image inconnue dans cet objet.")

    def raw(self, frame: int) -> bytes:
        """Give one frame as it is kept, compressed or not; of one-bit pixels the first stands in the first bit.

        Raises
        ------
        As `judge`, and InvalidContent when the pixels are not all there.
        """
        self.judge(frame)
        if not self.native:
            return self._compressed(frame)
        bits = self._frame_bits()
        first, last = (frame - 1) * bits, frame * bits
        swapped = self.syntax == ExplicitVRBigEndian and self.allocated == 8 and self._vr == "OW"
        start, end = first // 8, -(-last // 8)
        if swapped:  # bytes stand in pairs
            start, end = start & ~1, end + end % 2
        content = self._bytes(start, end - start)
        if swapped:
            content = np.frombuffer(content, "<u2").byteswap().tobytes()
        if self.allocated == 1 and first % 8:
            loose = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
            content = np.packbits(loose[first % 8 :][:bits], bitorder="little").tobytes()
        return content[first // 8 - start :][: -(-bits // 8)]

    def place(self, frame: int) -> int | None:
        """Where a frame's bytes begin in the file; None when they are not a piece of it as they stand."""
        bits = self._frame_bits()
        if self._content is not None or self.syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian) or bits % 8:
            return None
        return self._start + (frame - 1) * bits // 8

    @property
    def length(self) -> int:
        """Bytes of the pixels in the file."""
        return self._length

    def _frame_bits(self) -> int:
        pixels = self.rows * self.columns
        if self.interpretation in _SHARED_CHROMINANCE and self.samples == 3:
            return pixels * self.allocated * _SHARED_CHROMINANCE[self.interpretation] // 2
        kind = _PIXELS[self._tag]
        return pixels * self.samples * (int(kind[1]) * 8 if kind else self.allocated)

    def _bytes(self, start: int, length: int) -> bytes:
        if self._content is not None:
            content = self._content[start : start + length]
        else:
            with self._path.open("rb") as file:
                file.seek(self._start + start)
                content = file.read(min(length, max(self._length - start, 0)))
        if len(content) < length:
            raise InvalidContent("dicom-pixels", "Pixels manquants.")
        return content

    def _offsets(self) -> Any:
        offsets = tuple(said(self.header, name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"))
        return offsets if all(offsets) else None

    def _compressed(self, frame: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._start)
                content = get_frame(file, frame - 1, extended_offsets=self._offsets(), number_of_frames=self.count)
        except MemoryError:
            raise
        except Exception as error:
            raise InvalidContent("dicom-pixels", "Pixels manquants.") from error
        return content

    def every(self) -> Iterator[Decoded]:
        """Decode all frames of compressed pixels, in one way through the file.

        Raises
        ------
        As `decoded`.
        """
        self.judge(1)
        found = 0
        with self._path.open("rb") as file:
            file.seek(self._start)
            each = generate_frames(file, number_of_frames=self.count, extended_offsets=self._offsets())
            try:
                for content in itertools.islice(each, self.count):
                    yield self._understood(content, raw=False)
                    found += 1
            except (ValueError, EOFError, struct.error) as error:  # where a frame should begin
                raise InvalidContent("dicom-pixels", "Pixels manquants.") from error
        if found < self.count:
            raise InvalidContent("dicom-pixels", "Pixels manquants.")

    def decoded(self, frame: int, *, raw: bool = False) -> Decoded:
        """Decode one frame.

        Parameters
        ----------
        raw
            Leave colours in the space that the object's attributes name.

        Raises
        ------
        As `raw`, and Unsupported when no decoder reads the compression.
        """
        return self._understood(self.raw(frame), raw=raw)

    def _understood(self, content: bytes, *, raw: bool) -> Decoded:
        try:
            return self._laid_out(content) if self.native else self._decompressed(content, raw=raw)
        except (InvalidContent, Unsupported, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever the bytes led them to
            if "memory" in str(error).lower():
                raise MemoryError from error
            raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.") from error

    def _laid_out(self, content: bytes) -> Decoded:
        shape = (self.rows, self.columns)
        if self.allocated == 1 and self._tag == 0x7FE00010:
            count = math.prod(shape) * self.samples
            bits = np.unpackbits(np.frombuffer(content, np.uint8), count=count, bitorder="little")
            return Decoded(self._planes(bits), self.interpretation, 1)
        kind, order = _PIXELS[self._tag], ">" if self.syntax == ExplicitVRBigEndian else "<"
        words = np.frombuffer(content, f"{order}{kind or f'u{self.allocated // 8}'}")
        words = words.astype(words.dtype.newbyteorder("="), copy=False)
        if kind is not None:
            return Decoded(words.reshape(shape), self.interpretation, 0)
        if self.interpretation in _SHARED_CHROMINANCE and self.samples == 3:
            return Decoded(self._shared(words), self.interpretation, self.stored)
        words = self._planes(words)
        high = number(self.header, "HighBit", self.stored - 1)
        if not self.stored - 1 <= high < self.allocated:
            high = self.stored - 1
        values = words
        if self.stored < self.allocated or self.signed:
            values = np.left_shift(words, self.allocated - 1 - high)
            values = values.view(f"i{self.allocated // 8}") if self.signed else values
            values = np.right_shift(values, self.allocated - self.stored)
        return Decoded(values, self.interpretation, self.stored, words)

    def _planes(self, flat: NDArray[Any]) -> NDArray[Any]:
        if self.samples == 1:
            return flat.reshape(self.rows, self.columns)
        if number(self.header, "PlanarConfiguration", 0) == 1:
            return np.ascontiguousarray(flat.reshape(self.samples, self.rows, self.columns).transpose(1, 2, 0))
        return flat.reshape(self.rows, self.columns, self.samples)

    def _shared(self, flat: NDArray[Any]) -> NDArray[Any]:
        """Give each pixel its own chrominance `[PS3.3 C.7.6.3.1.2]`."""
        if self.interpretation == "YBR_PARTIAL_420":  # retired, and no two agree on where its samples stand
            raise Unsupported("dicom-colour-space", "Espace colorimétrique retiré de la norme : YBR_PARTIAL_420.")
        groups = flat.reshape(-1, 4)
        out = np.empty((groups.shape[0] * 2, 3), flat.dtype)
        out[:, 0] = groups[:, :2].reshape(-1)
        out[:, 1:] = np.repeat(groups[:, 2:], 2, axis=0)
        return out.reshape(self.rows, self.columns, 3)

    def _decompressed(self, content: bytes, *, raw: bool) -> Decoded:
        try:
            decoder = get_decoder(self.syntax)
        except NotImplementedError as error:  # pydicom's word for a syntax that it has no decoder of
            raise _undecodable() from error
        if not decoder.is_available:
            raise _undecodable()
        known = self.interpretation if self.interpretation in _KNOWN else ("MONOCHROME2", "RGB")[self.samples > 1]
        options: dict[str, Any] = {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": known,
            "planar_configuration": number(self.header, "PlanarConfiguration", 0),
            "bits_allocated": self.allocated,
            "bits_stored": self.stored,
            "pixel_representation": int(self.signed),
            "number_of_frames": 1,
        }
        if self.syntax == JPEGExtended12Bit and self.stored > 8:
            return Decoded(jpeg_values.values(self, content), self.interpretation, self.stored)
        if self.syntax in _LOSSLESS and self.samples == 1:
            with contextlib.suppress(ValueError, RuntimeError):
                return Decoded(jpeg_values.values(self, content), self.interpretation, self.stored)
        if self.syntax == JPEGBaseline8Bit and "pillow" in decoder.available_plugins:
            options["decoding_plugin"] = "pillow"  # several times faster than the others
        values, properties = decoder.as_array(encapsulate([content]), index=0, raw=raw, **options)
        became = str(properties.get("photometric_interpretation", known))
        interpretation = self.interpretation if became == known and self.interpretation not in _KNOWN else became
        return Decoded(values, interpretation, int(properties.get("bits_stored", self.stored)))


def _undecodable() -> Unsupported:
    return Unsupported("dicom-compression", "Compression d’image sans décodeur disponible.")
