"""pydicom's own test files and made ones, drawn and compared with dcmtk's pictures of the same objects."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom.frames import Frames
from gateway.dicom.render import Region, Window, frame_bytes, render
from gateway.dicom.transcode import transcoded
from gateway.errors import GatewayError, InvalidContent, Unsupported
from tests.contract.dicom.test_against_dcmtk import by_dcmtk, drawn, saved

pytestmark = pytest.mark.skipif(
    shutil.which("dcm2pnm") is None, reason="dcmtk is not installed (make test installs it as root)"
)

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def copied(tmp_path):
    """A file of pydicom's, where dcmtk may write beside it."""

    def copy(name: str) -> Path:
        return Path(shutil.copyfile(FILES / name, tmp_path / name))

    return copy


def agree(ours, theirs, tolerance=1, mean=1):
    assert ours.shape == theirs.shape
    difference = np.abs(ours - theirs)
    assert difference.max() <= tolerance
    assert difference.mean() <= mean
    assert theirs.std() > 1


#: File → dcmtk's tool, its options, greatest and mean difference.
PICTURES = {
    "CT_small.dcm": ("dcm2pnm", ("+Wm",), 2, 1),
    "MR_small.dcm": ("dcm2pnm", ("+Wi", "1"), 1, 1),
    "MR_small_implicit.dcm": ("dcm2pnm", ("+Wi", "1"), 1, 1),
    "MR_small_bigendian.dcm": ("dcm2pnm", ("+Wi", "1"), 1, 1),
    "MR_small_RLE.dcm": ("dcm2pnm", ("+Wi", "1"), 1, 1),
    "MR_small_jpeg_ls_lossless.dcm": ("dcml2pnm", ("+Wi", "1"), 1, 1),
    "ExplVR_BigEnd.dcm": ("dcm2pnm", (), 0, 0),
    "SC_rgb_small_odd_big_endian.dcm": ("dcm2pnm", (), 0, 0),
    "SC_rgb_rle.dcm": ("dcm2pnm", (), 0, 0),
    "SC_rgb_rle_16bit.dcm": ("dcm2pnm", (), 1, 1),
    "SC_ybr_full_422_uncompressed.dcm": ("dcm2pnm", (), 2, 1),
    "SC_rgb_jpeg_gdcm.dcm": ("dcmj2pnm", (), 0, 0),
    "SC_rgb_jpeg_lossy_gdcm.dcm": ("dcmj2pnm", (), 3, 1),
    "SC_rgb_dcmtk_+eb+cr.dcm": ("dcmj2pnm", (), 3, 1),
    "SC_rgb_dcmtk_+eb+cy+np.dcm": ("dcmj2pnm", (), 4, 1),
    "examples_ybr_color.dcm": ("dcmj2pnm", (), 8, 1),
    "examples_palette.dcm": ("dcm2pnm", (), 1, 1),
    "examples_rgb_color.dcm": ("dcm2pnm", (), 0, 0),
    "image_dfl.dcm": ("dcm2pnm", ("+Wm",), 1, 1),
    "liver_1frame.dcm": ("dcm2pnm", ("+Wm",), 0, 0),
    "JPGExtended.dcm": ("dcmj2pnm", ("+Wm",), 1, 1),
    "JPEG-lossy.dcm": ("dcmj2pnm", ("+Wm",), 1, 1),
    "examples_overlay.dcm": ("dcm2pnm", ("+Wi", "1"), 1, 1),
    "rtdose.dcm": ("dcm2pnm", ("+Wm",), 2, 1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_file_of_pydicom_s_is_drawn_as_dcmtk_does(copied, name):
    tool, options, tolerance, mean = PICTURES[name]
    path = copied(name)
    agree(drawn(path), by_dcmtk(tool, path, *options), tolerance, mean)


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [("MR_small_jp2klossless.dcm", "MR_small.dcm"), ("SC_rgb_small_odd_jpeg.dcm", "SC_rgb_small_odd.dcm")],
)
def test_what_dcmtk_cannot_decode_is_drawn_as_its_uncompressed_twin(compressed, plain):
    assert np.abs(drawn(FILES / compressed) - drawn(FILES / plain)).max() <= 4


@pytest.mark.parametrize(
    "name", ["693_J2KI.dcm", "JPEG2000.dcm", "GDCMJ2K_TextGBR.dcm", "J2K_pixelrep_mismatch.dcm", "examples_jpeg2k.dcm"]
)
def test_jpeg_2000_has_the_values_of_another_decoder(name):
    """By OpenJPEG in the product, by GDCM here."""
    from pydicom.pixels import pixel_array

    decoded = Frames(FILES / name).decoded(1)
    theirs = pixel_array(FILES / name, decoding_plugin="gdcm")
    assert np.abs(decoded.values.astype(int) - theirs.astype(int)).max() <= 1
    assert drawn(FILES / name).std() > 5


def test_every_file_of_pydicom_s_is_drawn_or_refused_by_name():
    refused = {}
    for path in sorted(FILES.glob("*.dcm")):
        try:
            assert drawn(path).size
        except GatewayError as error:
            refused.setdefault(error.code, set()).add(path.name)
    assert refused.pop("dicom-pixels") == {"MR_truncated.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"}
    assert not any("Rows" in dcmread(FILES / name) for name in refused["dicom-no-pixels"] if "rt" not in name)
    assert set(refused) == {"dicom-no-pixels", "dicom-unreadable"}


def picture(interpretation, pixels, **more):
    """A colour object of 8 bits."""
    ds = slice_data_set(DOMINIQUE, 0)
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, keyword)
    ds.PhotometricInterpretation, ds.PlanarConfiguration = interpretation, 0
    ds.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.PixelData = pixels.astype(np.uint8).tobytes()
    ds["PixelData"].VR = "OB"
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def ramps(samples):
    y, x = np.mgrid[0:128, 0:128]
    return np.dstack([x * 2, y * 2, 255 - x, (x + y) // 2][:samples])


@pytest.mark.parametrize(
    ("interpretation", "samples", "tolerance"), [("HSV", 3, 4), ("CMYK", 4, 2), ("YBR_FULL", 3, 2), ("RGB", 3, 0)]
)
@pytest.mark.parametrize("planar", [0, 1])
def test_colour_spaces_and_planes(tmp_path, interpretation, samples, tolerance, planar):
    pixels = ramps(samples) // 2 if interpretation == "CMYK" else ramps(samples)  # more than all the ink wraps there
    ds = picture(interpretation, pixels)
    if planar:
        ds.PlanarConfiguration = 1
        ds.PixelData = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.uint8).tobytes()
        ds["PixelData"].VR = "OB"
    path = saved(ds, tmp_path / "colour.dcm")
    agree(drawn(path), by_dcmtk("dcm2pnm", path), tolerance, 1)


@pytest.mark.parametrize("interpretation", ["YBR_FULL_422", "YBR_PARTIAL_422"])
def test_shared_chrominance(tmp_path, interpretation):
    y, x = np.mgrid[0:128, 0:128]
    groups = np.stack([16 + x[:, ::2], 17 + x[:, ::2], 64 + y[:, ::2], 192 - y[:, ::2]], axis=-1)
    ds = picture(interpretation, ramps(3))
    ds.PixelData = groups.astype(np.uint8).tobytes()
    ds["PixelData"].VR = "OB"
    path = saved(ds, tmp_path / "shared.dcm")
    agree(drawn(path), by_dcmtk("dcm2pnm", path), 3, 1.5)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 15), (10, 12), (16, 15)])
@pytest.mark.parametrize("signed", [0, 1])
def test_values_stand_in_some_of_the_bits(tmp_path, stored, high, signed, syntax):
    """The bits that are left hold noise, which is nobody's value."""
    ds = slice_data_set(DOMINIQUE, 2)
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
        delattr(ds, keyword)
    ds.RescaleSlope, ds.RescaleIntercept = "-2", "5"
    y, x = np.mgrid[0:128, 0:128]
    values = (x * 7 + y * 3) % 500 - (250 if signed else 0)
    low = high + 1 - stored
    mask = ((1 << stored) - 1) << low
    noise = np.random.default_rng(1).integers(0, 1 << 16, values.shape) & ~mask & 0xFFFF
    words = ((values << low) & mask | noise).astype(np.uint16)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, stored, high, signed
    if syntax == ExplicitVRBigEndian:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = words.byteswap().tobytes()
        pydicom.dcmwrite(tmp_path / "bits.dcm", ds, implicit_vr=False, little_endian=False, enforce_file_format=True)
        path = tmp_path / "bits.dcm"
    else:
        ds.PixelData = words.tobytes()
        path = saved(ds, tmp_path / "bits.dcm")
    agree(drawn(path), by_dcmtk("dcm2pnm", path, "+Wm"), 1)
    assert (Frames(path).decoded(1).values == values).all()


@pytest.mark.parametrize("option", ["+e1", "+el"])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 8), (16, 10), (16, 12), (16, 16)])
@pytest.mark.parametrize("signed", [0, 1])
def test_lossless_jpeg_by_dcmtk_has_the_values_that_went_in(tmp_path, allocated, stored, signed, option):
    ds = slice_data_set(DOMINIQUE, 2)
    y, x = np.mgrid[0:128, 0:128]
    values = (x * y * 7) % (1 << stored) - ((1 << stored - 1) if signed else 0)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = allocated, stored, stored - 1, signed
    ds.PixelData = values.astype(f"{'i' if signed else 'u'}{allocated // 8}").tobytes()
    ds["PixelData"].VR = "OB" if allocated == 8 else "OW"
    plain, compressed = saved(ds, tmp_path / "plain.dcm"), tmp_path / "compressed.dcm"
    subprocess.run(["dcmcjpeg", option, plain, compressed], check=True, capture_output=True)
    assert (Frames(compressed).decoded(1).values == values).all()
    assert render(compressed) == render(plain)


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_jpeg_of_twelve_bits_is_converted_to_dcmtk_s_values(copied, name):
    path = copied(name)
    plain = path.with_suffix(".plain.dcm")
    subprocess.run(["dcmdjpeg", path, plain], check=True, capture_output=True)
    converted = dcmread(io.BytesIO(transcoded(path, ExplicitVRLittleEndian)))
    assert (converted.pixel_array == dcmread(plain).pixel_array).all()
    assert (converted["PixelData"].VR, converted["PixelData"].is_undefined_length) == ("OW", False)
    assert converted.SOPInstanceUID == dcmread(path).SOPInstanceUID


@pytest.mark.parametrize(
    "name", ["rtdose_rle.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "693_J2KI.dcm"]
)
def test_an_object_is_converted_frame_by_frame_to_the_values_of_the_library(name):
    converted = dcmread(io.BytesIO(transcoded(FILES / name, ExplicitVRLittleEndian)))
    assert converted.PixelData == dcmread(FILES / name).pixel_array.tobytes()


def test_an_object_that_lacks_a_frame_is_not_converted(tmp_path):
    ds = dcmread(FILES / "rtdose_rle.dcm")
    kept = list(generate_frames(ds.PixelData, number_of_frames=15))[:14]
    ds.PixelData = encapsulate(kept)
    with pytest.raises(InvalidContent) as refusal:
        transcoded(saved(ds, tmp_path / "lacking.dcm"), ExplicitVRLittleEndian)
    assert refusal.value.code == "dicom-pixels"


def overlaid(ds, group, plane, *, origin=(1, 1), kind="G", **more):
    rows, columns = plane.shape[-2:]
    for element, vr, value in (
        (0x0010, "US", rows),
        (0x0011, "US", columns),
        (0x0040, "CS", kind),
        (0x0050, "SS", list(origin)),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x3000, "OW", np.packbits(plane.ravel().astype(np.uint8), bitorder="little").tobytes()),
    ):
        ds.add_new((group, element), vr, value)
    for element, value in more.items():
        ds.add_new((group, int(element[1:], 16)), "IS" if element == "e0015" else "US", value)
    return ds


def cross(size):
    plane = np.zeros((size, size), bool)
    plane[size // 2] = plane[:, size // 3] = True
    return plane


@pytest.mark.parametrize("origin", [(1, 1), (20, 40), (-9, -19), (100, 90)])
@pytest.mark.parametrize("interpretation", ["MONOCHROME2", "MONOCHROME1"])
def test_an_overlay_stands_where_its_origin_says(tmp_path, origin, interpretation):
    ds = slice_data_set(DOMINIQUE, 1)
    ds.PhotometricInterpretation = interpretation
    path = saved(overlaid(ds, 0x6002, cross(64), origin=origin), tmp_path / "overlay.dcm")
    agree(drawn(path), by_dcmtk("dcm2pnm", path, "+Wi", "1"))


def test_an_overlay_in_unused_bits(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    words = np.frombuffer(ds.PixelData, np.uint16).reshape(128, 128)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    plane = cross(128)
    ds.PixelData = ((words & 0xFFF) | plane.astype(np.uint16) << 13).astype(np.uint16).tobytes()
    overlaid(ds, 0x6000, plane)
    del ds[0x60003000]
    ds[0x60000100].value, ds[0x60000102].value = 16, 13
    path = saved(ds, tmp_path / "embedded.dcm")
    ours = drawn(path)
    agree(ours, by_dcmtk("dcm2pnm", path, "+Wi", "1"))
    assert (ours[plane] == 255).all()


def test_each_frame_has_its_own_plane(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    ds.NumberOfFrames = 3
    ds.PixelData = ds.PixelData * 3
    planes = np.stack([np.zeros((128, 128), bool), cross(128)])
    planes[0, 5:9] = True
    overlaid(ds, 0x6000, planes, e0015=2, e0051=2)
    path = saved(ds, tmp_path / "frames.dcm")
    for frame in (1, 2, 3):
        agree(drawn(path, frame=frame), by_dcmtk("dcm2pnm", path, "+Wi", "1", "+F", str(frame)))
    assert (drawn(path, frame=1)[6] != drawn(path, frame=2)[6]).any()


def test_one_bit_frames_that_begin_inside_a_byte(tmp_path):
    """3 × 3 pixels of one bit: the second frame begins in the tenth bit."""
    frames = np.array([[1, 0, 1, 0, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0, 0, 0, 1]], np.uint8)
    ds = picture("MONOCHROME2", np.zeros((3, 3)))
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.NumberOfFrames = 1, 1, 0, 2
    ds.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes() + b"\0"
    ds["PixelData"].VR = "OB"
    path = saved(ds, tmp_path / "bits.dcm")
    for number, frame in enumerate(frames, 1):
        assert (drawn(path, frame=number) == frame.reshape(3, 3) * 255).all()
        alone = np.unpackbits(np.frombuffer(frame_bytes(path, number), np.uint8), bitorder="little")[:9]
        assert (alone == frame).all()


def test_functional_groups_say_how_a_frame_is_drawn(tmp_path):
    """dcmtk reads none: it draws an object that says the same of itself."""
    ds = slice_data_set(DOMINIQUE, 1)
    plain = slice_data_set(DOMINIQUE, 1)
    plain.RescaleSlope, plain.RescaleIntercept, plain.WindowCenter, plain.WindowWidth = "2", "-2048", "100", "900"
    ds.NumberOfFrames = 2
    ds.PixelData = ds.PixelData * 2
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, keyword)

    def group(slope, intercept, center, width):
        made, values, window = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, intercept, "US"
        window.WindowCenter, window.WindowWidth = center, width
        made.PixelValueTransformationSequence, made.FrameVOILUTSequence = [values], [window]
        return made

    shared, first = group("1", "0", "1", "2"), Dataset()
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [first, group("2", "-2048", "100", "900")]
    path = saved(ds, tmp_path / "enhanced.dcm")
    reference = by_dcmtk("dcm2pnm", saved(plain, tmp_path / "plain.dcm"), "+Wi", "1")
    agree(drawn(path, frame=2), reference)
    assert np.abs(drawn(path, frame=1) - reference).mean() > 10


def test_a_modality_lut(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.WindowCenter, ds.WindowWidth, ds.PixelRepresentation = "32768", "65536", 0
    del ds.WindowCenterWidthExplanation
    ds.BitsStored, ds.HighBit = 16, 15
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [4096, 0, 16], "US"
    lut.LUTData = (65535 * (np.arange(4096) / 4095) ** 2).astype("<u2").tobytes()
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
    ds.ModalityLUTSequence = [lut]
    path = saved(ds, tmp_path / "lut.dcm")
    agree(drawn(path), by_dcmtk("dcm2pnm", path, "+Wi", "1"))


def test_a_window_on_signed_values_over_their_whole_range(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 1
    ds.PixelData = np.linspace(-32768, 32767, 128 * 128).astype(np.int16).tobytes()
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    path = saved(ds, tmp_path / "whole.dcm")
    window = Window.parse("0,65536,linear-exact")
    agree(drawn(path, window=window), by_dcmtk("dcm2pnm", path, "+Ww", "0", "65536"))


def test_a_region_is_cut_out_and_mirrored(tmp_path):
    path = saved(slice_data_set(DOMINIQUE, 1), tmp_path / "ct.dcm")
    whole = drawn(path)
    assert (drawn(path, viewport=Region(32, 16, (20, 30, 32, 16))) == whole[30:46, 20:52]).all()
    assert (drawn(path, viewport=Region(32, 16, (20, 30, -32, -16))) == whole[30:46, 20:52][::-1, ::-1]).all()
    theirs = by_dcmtk("dcm2pnm", path, "+Wi", "1", "+C", "20", "30", "32", "16")
    agree(drawn(path, viewport=Region(32, 16, (20, 30, 32, 16))), theirs)
    with pytest.raises(InvalidContent):
        render(path, viewport=Region(10, 10, (500, 500, 10, 10)))


def test_compressions_without_a_decoder_are_refused_by_name(tmp_path):
    ds = dcmread(FILES / "JPEG2000.dcm")
    for syntax in ("1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.107"):
        ds.file_meta.TransferSyntaxUID = syntax
        with pytest.raises(Unsupported) as refusal:
            render(saved(ds, tmp_path / "video.dcm"))
        assert refusal.value.code == "dicom-compression"
