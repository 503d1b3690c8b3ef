"""Pictures and metadata compared with what dcmtk makes of the same objects."""

import io
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set, write_series
from gateway.dicom import translate
from gateway.dicom.render import Region, Window, render
from gateway.errors import InvalidContent, NotFound, Unsupported

pytestmark = pytest.mark.skipif(
    shutil.which("dcm2pnm") is None, reason="dcmtk is not installed (make test installs it as root)"
)


@pytest.fixture
def ct(tmp_path):
    return write_series(DOMINIQUE, tmp_path / "ct")[2]


def drawn(path, *, window=None, frame=1, viewport=None):
    content = render(path, frame, media_type="image/png", window=window, viewport=viewport)
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def by_dcmtk(tool, path, *options):
    out = path.with_suffix(".ref.png")
    subprocess.run([tool, *options, "--write-png", path, out], check=True, capture_output=True)
    return np.asarray(Image.open(out)).astype(int)


def saved(ds: Dataset, path):
    ds.save_as(path, enforce_file_format=True)
    return path


def alike(ours, theirs, tolerance=1):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance
    assert theirs.std() > 5  # a plain picture would prove nothing


def test_the_first_window_of_the_object(ct):
    alike(drawn(ct), by_dcmtk("dcm2pnm", ct, "+Wi", "1"))


@pytest.mark.parametrize(
    ("window", "options"), [("-600,1500", ("+Ww", "-600", "1500")), ("300,1,linear", ("+Ww", "300", "1"))]
)
def test_a_window_asked_for(ct, window, options):
    alike(drawn(ct, window=Window.parse(window)), by_dcmtk("dcm2pnm", ct, *options))


def test_a_sigmoid_window(ct):
    alike(
        drawn(ct, window=Window.parse("40,400,sigmoid")),
        by_dcmtk("dcm2pnm", ct, "+Ww", "40", "400", "--sigmoid-function"),
        2,
    )


def test_monochrome1_is_inverted(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    ds.PhotometricInterpretation = "MONOCHROME1"
    path = saved(ds, tmp_path / "m1.dcm")
    alike(drawn(path), by_dcmtk("dcm2pnm", path, "+Wi", "1"))


def test_without_a_window_the_frame_s_own_range_is_taken(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    del ds.WindowCenter, ds.WindowWidth, ds.WindowCenterWidthExplanation
    path = saved(ds, tmp_path / "none.dcm")
    alike(drawn(path), by_dcmtk("dcm2pnm", path, "+Wm"), 2)


def test_a_voi_lut(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    del ds.WindowCenter, ds.WindowWidth, ds.WindowCenterWidthExplanation
    lut = Dataset()
    lut.LUTDescriptor = [4096, -1024, 16]
    lut["LUTDescriptor"].VR = "SS"
    table = (65535 * (np.arange(4096) / 4095) ** 0.5).astype(np.uint16)
    lut.LUTData = table.astype("<u2").tobytes()
    lut["LUTData"].VR = "OW"
    ds.VOILUTSequence = [lut]
    path = saved(ds, tmp_path / "voi.dcm")
    alike(drawn(path), by_dcmtk("dcm2pnm", path, "+Wl", "1"), 2)


def colour(tmp_path, interpretation):
    ds = slice_data_set(DOMINIQUE, 0)
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, keyword)
    y, x = np.mgrid[0:128, 0:128]
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, interpretation
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = np.dstack([x * 2, y * 2, 255 - x]).astype(np.uint8).tobytes()
    ds["PixelData"].VR = "OB"
    return saved(ds, tmp_path / "colour.dcm")


@pytest.mark.parametrize(("interpretation", "tolerance"), [("RGB", 0), ("YBR_FULL", 2)])
def test_colour(tmp_path, interpretation, tolerance):
    path = colour(tmp_path, interpretation)
    alike(drawn(path), by_dcmtk("dcm2pnm", path), tolerance)


def test_a_palette(tmp_path):
    ds = slice_data_set(DOMINIQUE, 0)
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, keyword)
    ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, ds.HighBit = "PALETTE COLOR", 8, 8, 7
    ds.PixelData = np.tile(np.arange(128, dtype=np.uint8) * 2, 128).tobytes()
    ds["PixelData"].VR = "OB"
    ramp = np.arange(256)
    for name, table in (("Red", ramp), ("Green", 255 - ramp), ("Blue", ramp // 2)):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", (table * 257).astype("<u2").tobytes())
    path = saved(ds, tmp_path / "palette.dcm")
    alike(drawn(path), by_dcmtk("dcm2pnm", path))


@pytest.mark.parametrize(
    ("encoder", "options", "decoder"),
    [
        ("dcmcrle", (), "dcm2pnm"),
        ("dcmcjpls", (), "dcmjpls"),
        ("dcmcjpeg", ("+e1",), "dcmj2pnm"),
        ("dcmcjpeg", ("+eb",), "dcmj2pnm"),
    ],
    ids=["RLE", "JPEG-LS", "JPEG lossless", "JPEG baseline"],
)
def test_compressed_pixels(tmp_path, ct, encoder, options, decoder):
    path = tmp_path / "compressed.dcm"
    source = ct
    if options == ("+eb",):
        source = colour(tmp_path, "RGB")
    subprocess.run([encoder, *options, source, path], check=True, capture_output=True)
    if encoder == "dcmcjpls":
        plain = tmp_path / "plain.dcm"
        subprocess.run(["dcmdjpls", path, plain], check=True, capture_output=True)
        alike(drawn(path), by_dcmtk("dcm2pnm", plain, "+Wi", "1"))
    elif options == ("+eb",):
        alike(drawn(path), by_dcmtk(decoder, path), 8)
    else:
        alike(drawn(path), by_dcmtk(decoder, path, "+Wi", "1"))


def test_frames_are_counted_from_one(tmp_path):
    ds = slice_data_set(DOMINIQUE, 0)
    other = slice_data_set(DOMINIQUE, 4)
    ds.NumberOfFrames = 2
    ds.PixelData = ds.PixelData + other.PixelData
    path = saved(ds, tmp_path / "two.dcm")
    alike(drawn(path, frame=2), by_dcmtk("dcm2pnm", path, "+Wi", "1", "+F", "2"))
    assert (drawn(path, frame=1) != drawn(path, frame=2)).any()
    for frame in (0, 3):
        with pytest.raises(NotFound):
            render(path, frame)


def test_a_viewport_keeps_proportions_and_squares_pixels(tmp_path):
    ds = slice_data_set(DOMINIQUE, 0)
    ds.PixelSpacing = ["6", "3"]
    path = saved(ds, tmp_path / "tall.dcm")
    assert drawn(path, viewport=Region(100, 100)).shape == (100, 50)


def test_what_cannot_be_drawn_is_refused(tmp_path, ct):
    ds = dcmread(ct)
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(ds, keyword)
    with pytest.raises(Unsupported):
        render(saved(ds, tmp_path / "report.dcm"))
    with pytest.raises(Unsupported):
        render(ct, media_type="image/x-icon")
    huge = dcmread(ct)
    huge.Rows = huge.Columns = 60000
    with pytest.raises(InvalidContent):
        render(saved(huge, tmp_path / "huge.dcm"))
    short = dcmread(ct)
    short.PixelData = short.PixelData[:100]
    with pytest.raises(InvalidContent):
        render(saved(short, tmp_path / "short.dcm"))


@pytest.mark.parametrize("text", ["", "1", "1,0", "a,b", "1,2,cubic", "nan,1", "1,-5", "1,inf"])
def test_a_bad_window_is_refused(text):
    with pytest.raises(InvalidContent):
        Window.parse(text)


def test_group_lengths_are_left_out_at_every_depth_as_dcmtk_leaves_them_out(tmp_path):
    """dcmtk's `dcmconv` adds them to the object and to the items of its sequences `[PS3.18 F.2]`."""
    ds, code, inner = slice_data_set(DOMINIQUE, 0), Dataset(), Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "1", "99X", "Essai"
    code.ProcedureCodeSequence, code.RequestedProcedureID = [inner], "P1"
    ds.RequestAttributesSequence = [code]
    path = saved(ds, tmp_path / "plain.dcm")
    said = [path, tmp_path / "explicit.dcm", tmp_path / "implicit.dcm"]
    for out, options in zip(said[1:], (("+te",), ("+ti",)), strict=True):
        subprocess.run(["dcmconv", "+g", *options, path, out], check=True, capture_output=True)
        assert out.read_bytes().count(b"\x08\0\0\0") >= 2  # in the object and in an item
    for one in said:
        found = translate.read(one).dicom_json
        theirs = json.loads(subprocess.run(["dcm2json", one], check=True, capture_output=True, text=True).stdout)
        assert json.loads(found).keys() == {tag for tag in theirs if not tag.startswith("0002")}
        assert b'0000":' not in found
        assert found == translate.read(path).dicom_json


@pytest.mark.parametrize("syntax", ["+te", "+ti"])
def test_pixels_are_named_where_there_are_some_as_dcmtk_names_them(tmp_path, syntax):
    ds = slice_data_set(DOMINIQUE, 0)
    changed = {"none": slice_data_set(DOMINIQUE, 0), "empty": slice_data_set(DOMINIQUE, 0)}
    del changed["none"].PixelData
    changed["empty"].PixelData = b""
    for keyword, vr, bits, kind in (("FloatPixelData", "OF", 32, "<f4"), ("DoubleFloatPixelData", "OD", 64, "<f8")):
        one = changed[keyword] = slice_data_set(DOMINIQUE, 0)
        one.BitsAllocated = bits
        del one.PixelData
        one.add_new(keyword, vr, np.zeros((one.Rows, one.Columns), kind).tobytes())
    for name, one in {"plain": ds, **changed}.items():  # of one series, one after the other
        path, other = saved(one, tmp_path / f"{name}.dcm"), tmp_path / f"{name}.other.dcm"
        subprocess.run(["dcmconv", syntax, path, other], check=True, capture_output=True)
        theirs = json.loads(subprocess.run(["dcm2json", other], check=True, capture_output=True, text=True).stdout)
        ours = json.loads(translate.read(other).dicom_json)
        assert ours.keys() == {tag for tag in theirs if not tag.startswith("0002")}, name
        for tag in ("7FE00010", "7FE00008", "7FE00009"):
            if tag in theirs:
                there = "InlineBinary" in theirs[tag]
                uri = {"BulkDataURI": f"bulkdata/{tag}"} if there else {}
                assert ours[tag] == {"vr": theirs[tag]["vr"], **uri}, name


def test_the_json_says_what_dcmtk_s_says(ct):
    theirs = json.loads(subprocess.run(["dcm2json", ct], check=True, capture_output=True, text=True).stdout)
    ours = json.loads(translate.read(ct).dicom_json)
    # Theirs stands inside, ours is fetched from where it is said to stand.
    pixels = theirs.pop("7FE00010")
    assert ours.pop("7FE00010") == {"vr": pixels["vr"], "BulkDataURI": "bulkdata/7FE00010"}
    theirs = {tag: element for tag, element in theirs.items() if not tag.startswith("0002")}
    assert ours.keys() == theirs.keys()
    for tag, element in theirs.items():
        assert ours[tag]["vr"] == element["vr"]
        if element["vr"] in ("DS", "IS"):
            assert [float(v) for v in ours[tag].get("Value", [])] == [float(v) for v in element.get("Value", [])]
        elif element["vr"] != "SQ":
            assert ours[tag].get("Value") == element.get("Value"), tag
