"""High-Throughput JPEG 2000: written, and read for comparison, by OpenJPH, which the gateway does not use."""

import io

import numpy as np
import pytest
from imagecodecs import htj2k_decode, htj2k_encode
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2K, ExplicitVRLittleEndian, HTJ2KLossless, HTJ2KLosslessRPCL, RLELossless

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom.frames import Frames
from gateway.dicom.render import frame_bytes, render
from gateway.dicom.transcode import encoded_frame, transcoded
from gateway.errors import InvalidContent
from tests.contract.dicom.test_against_dcmtk import saved

Y, X = np.mgrid[0:70, 0:90]
RGB = np.dstack([X * 2, Y * 3, 255 - X]).astype(np.uint8)


def made(path, pixels, stored, syntax, interpretation="MONOCHROME2", **options):
    """An object, its one frame compressed; None as syntax: as it is."""
    ds = slice_data_set(DOMINIQUE, 2)
    allocated = pixels.dtype.itemsize * 8
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.PhotometricInterpretation = interpretation
    if pixels.ndim == 3:
        ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if allocated == 8 else "OW"
    if syntax is not None:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([bytes(htj2k_encode(pixels, **options))])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return saved(ds, path)


@pytest.mark.parametrize(("syntax", "options"), [(HTJ2KLossless, {}), (HTJ2KLosslessRPCL, {"tlm": True})])
@pytest.mark.parametrize(
    ("kind", "stored"), [("u1", 8), ("i1", 8), ("u2", 10), ("u2", 12), ("i2", 12), ("u2", 16), ("i2", 16)]
)
def test_every_value_comes_back(tmp_path, kind, stored, syntax, options):
    low = 1 << stored - 1 if kind[0] == "i" else 0
    values = (X * Y * 7 % (1 << stored) - low).astype(kind)
    path = made(tmp_path / "one.dcm", values, stored, syntax, reversible=True, **options)
    plain = made(tmp_path / "plain.dcm", values, stored, None)
    decoded = Frames(path).decoded(1)
    assert (decoded.values == values).all()
    assert frame_bytes(path) == frame_bytes(plain)
    assert render(path) == render(plain)


@pytest.mark.parametrize("interpretation", ["RGB", "YBR_RCT"])
def test_colours_come_back(tmp_path, interpretation):
    options = {"reversible": True, "rgb": interpretation == "YBR_RCT"}
    path = made(tmp_path / "colour.dcm", RGB, 8, HTJ2KLossless, interpretation, **options)
    plain = made(tmp_path / "plain.dcm", RGB, 8, None, "RGB")
    assert (Frames(path).decoded(1).values == RGB).all()
    assert render(path, media_type="image/png") == render(plain, media_type="image/png")
    converted = dcmread(io.BytesIO(transcoded(path, ExplicitVRLittleEndian)))
    assert (converted.PhotometricInterpretation, converted.PixelData) == ("RGB", RGB.tobytes())


@pytest.mark.parametrize("level", [0.005, 0.02])
@pytest.mark.parametrize(("pixels", "stored", "interpretation"), [(RGB, 8, "YBR_ICT"), (None, 12, "MONOCHROME2")])
def test_with_loss_the_values_are_those_of_the_other_decoder(tmp_path, pixels, stored, interpretation, level):
    values = ((X * 30 + Y * 11) % 4096).astype(np.uint16) if pixels is None else pixels
    options = {"level": level, "reversible": False} | ({"rgb": True} if pixels is not None else {})
    path = made(tmp_path / "lossy.dcm", values, stored, HTJ2K, interpretation, **options)
    frames = Frames(path)
    theirs = htj2k_decode(frames.raw(1))
    assert np.abs(frames.decoded(1).values.astype(int) - theirs).max() <= 1
    assert np.abs(theirs.astype(int) - values).max() > 0  # there was loss


@pytest.mark.parametrize("parts", [None, 1])
def test_tiles_and_their_parts(tmp_path, parts):
    """Whole, or a part for each resolution."""
    values = (X * Y % 4096).astype(np.uint16)
    options = {"reversible": True, "tile": (32, 32), "tilepart": parts, "resolutions": 3}
    path = made(tmp_path / "tiles.dcm", values, 12, HTJ2KLosslessRPCL, **options)
    assert (Frames(path).decoded(1).values == values).all()


@pytest.mark.parametrize("target", [ExplicitVRLittleEndian, "1.2.840.10008.1.2", RLELossless, "1.2.840.10008.1.2.4.90"])
def test_an_object_is_converted(tmp_path, target):
    values = (X * Y * 7 % 4096).astype(np.uint16)
    path = made(tmp_path / "one.dcm", values, 12, HTJ2KLossless, reversible=True)
    converted = dcmread(io.BytesIO(transcoded(path, target)))
    assert converted.file_meta.TransferSyntaxUID == target
    assert (converted.pixel_array == values).all()
    assert converted.SOPInstanceUID == dcmread(path).SOPInstanceUID


def test_a_frame_is_encoded_as_png(tmp_path):
    path = made(tmp_path / "one.dcm", RGB[..., 0].copy(), 8, HTJ2KLossless, reversible=True)
    plain = made(tmp_path / "plain.dcm", RGB[..., 0].copy(), 8, None)
    assert encoded_frame(Frames(path), 1, "image/png") == encoded_frame(Frames(plain), 1, "image/png")


@pytest.mark.parametrize("share", [0.02, 0.4, 0.8])
def test_a_frame_that_breaks_off_is_refused(tmp_path, share):
    values = np.random.default_rng(4).integers(0, 4096, Y.shape).astype(np.uint16)
    path = made(tmp_path / "one.dcm", values, 12, HTJ2KLossless, reversible=True)
    ds = dcmread(path)
    frame = Frames(path).raw(1)
    ds.PixelData = encapsulate([frame[: int(len(frame) * share)]])
    with pytest.raises(InvalidContent) as refusal:
        Frames(saved(ds, path)).decoded(1)
    assert refusal.value.code == "dicom-pixels"
