"""JPEG pixels by GDCM, for what pydicom asks of nobody, or asks at a price.

pydicom takes a decoded frame through the wrapper's text and back (half of a lossless JPEG's time), and asks no library
under a free licence for JPEG process 4. Here the decoded bytes are copied from where GDCM laid them.

Promises: the values that GDCM decodes, or an exception; whoever calls protects the process from it
(`gateway.dicom.drawing`).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gateway.dicom.frames import Frames

__all__ = ["values"]


def values(frames: Frames, content: bytes) -> NDArray[Any]:
    """Decode one frame.

    Raises
    ------
    ValueError
        It is not decoded, or not to the size that the object names.
    """
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(content)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((frames.columns, frames.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(frames.interpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(frames.syntax))))
    image.SetPixelFormat(
        gdcm.PixelFormat(frames.samples, frames.allocated, frames.stored, frames.stored - 1, int(frames.signed))
    )
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    image.thisown = False  # counted from here on: the filter's reference is the last
    change.SetInput(image)
    if not change.Change():
        raise ValueError("not decoded")
    output = change.GetOutput()
    value = output.GetDataElement().GetByteValue()
    size = frames.rows * frames.columns * frames.samples * (frames.allocated // 8)
    if value is None or not size <= int(str(value.GetLength())) <= size + 1:
        raise ValueError("another size")
    decoded = ctypes.string_at(int(value.GetVoidPointer()), size)
    shape = (frames.rows, frames.columns) if frames.samples == 1 else (frames.rows, frames.columns, frames.samples)
    return np.frombuffer(decoded, f"<{'i' if frames.signed else 'u'}{frames.allocated // 8}").reshape(shape)
