"""Presentation states by dcmtk's dcmpsmk and by pydicom: the pictures that dcmtk's dcmp2pgm makes of them.

dcmp2pgm draws neither shutters nor displayed areas: those are judged by what dcm2pnm cuts out, and by pictures that are
made by hand.
"""

import io
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom.presentation_drawing import render
from gateway.dicom.render import Region
from tests.contract.dicom.test_against_dcmtk import by_dcmtk, saved

pytestmark = pytest.mark.skipif(
    shutil.which("dcmp2pgm") is None, reason="dcmtk is not installed (make test installs it as root)"
)


@pytest.fixture
def image(tmp_path):
    return saved(slice_data_set(DOMINIQUE, 2), tmp_path / "image.dcm")


def state_of(image, *options):
    path = image.with_suffix(".state.dcm")
    subprocess.run(["dcmpsmk", *options, image, path], check=True, capture_output=True)
    return path


def changed(path, change):
    ds = dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def ours(image, state, *, frame=1, viewport=None):
    uid = dcmread(image, stop_before_pixels=True).SOPInstanceUID
    content = render(image, state, uid, frame, media_type="image/png", viewport=viewport)
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def theirs(image, state, *options):
    out = image.with_suffix(".pgm")
    subprocess.run(["dcmp2pgm", *options, "-p", state, image, out], check=True, capture_output=True)
    return np.asarray(Image.open(out)).astype(int)


def agree(image, state, *, frame=1):
    mine, reference = ours(image, state, frame=frame), theirs(image, state, "-f", str(frame))
    assert mine.shape == reference.shape
    assert np.abs(mine - reference).max() <= 1
    assert reference.std() > 5  # a plain picture would prove nothing
    return mine


def table(descriptor, data):
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = descriptor, np.asarray(data).astype("<u2").tobytes()
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
    return lut


def windowed(center, width, function=None):
    def change(ds):
        ds.SoftcopyVOILUTSequence[0].WindowCenter, ds.SoftcopyVOILUTSequence[0].WindowWidth = center, width
        if function:
            ds.SoftcopyVOILUTSequence[0].VOILUTFunction = function

    return change


def turned(rotation, flip):
    def change(ds):
        ds.ImageRotation, ds.ImageHorizontalFlip = rotation, flip

    return change


def looked_up(ds):
    """1024 values from -500 on, brighter and brighter, then darker."""
    item = ds.SoftcopyVOILUTSequence[0]
    del item.WindowCenter, item.WindowWidth
    data = 4095 * np.sin(np.linspace(0, 2.5, 1024))
    item.VOILUTSequence = [table([1024, 65036, 12], data)]
    item.VOILUTSequence[0]["LUTDescriptor"].VR = "SS"
    item.VOILUTSequence[0].LUTDescriptor = [1024, -500, 12]


def presented(ds):
    """Of 1024 entries: between two of them dcmtk takes the lower one, we the nearer one."""
    del ds.PresentationLUTShape
    ds.PresentationLUTSequence = [table([1024, 0, 12], 4095 * (np.arange(1024) / 1023) ** 2.2)]


def modality(ds):
    del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
    lut = table([4096, 0, 16], 65535 * (np.arange(4096) / 4095) ** 0.5)
    lut.ModalityLUTType = "US"
    ds.ModalityLUTSequence = [lut]
    windowed(32768, 65536)(ds)


def unscaled(ds):
    del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
    windowed(1100, 500)(ds)


def whole_range(ds):
    del ds.SoftcopyVOILUTSequence


CHANGES = {
    "as dcmpsmk makes it": lambda _: None,
    "a lung window": windowed(-600, 1500),
    "a window of one": windowed(40, 1),
    "a narrow window": windowed(40.5, 3),
    "no window": whole_range,
    "no rescale": unscaled,
    "a modality table": modality,
    "a window's table": looked_up,
    "inverse": lambda ds: setattr(ds, "PresentationLUTShape", "INVERSE"),
    "a presentation table": presented,
    "a presentation table after a window's": lambda ds: (looked_up(ds), presented(ds)),
    **{f"turned by {by}, {flip}": turned(by, flip) for by in (0, 90, 180, 270) for flip in "NY"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_state_is_drawn_as_dcmtk_does(image, change):
    agree(image, changed(state_of(image), change))


def test_each_of_these_changes_is_seen(image):
    """That two programs agree says nothing of a step that neither takes."""
    drawn = {ours(image, changed(state_of(image), change)).tobytes() for change in CHANGES.values()}
    assert len(drawn) == len(CHANGES) - 1  # turned by nothing is as it was


@pytest.mark.parametrize("option", [("+Vl",), ("+Vw",), ("-V",), ("-p",)])
def test_a_state_that_dcmtk_makes_of_an_image_s_own_window(image, option):
    agree(image, state_of(image, *option))


@pytest.mark.parametrize(("stored", "signed"), [(8, 0), (12, 1), (16, 0), (16, 1)])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_the_state_decides_of_polarity_whatever_the_image_says(tmp_path, stored, signed, interpretation):
    ds = slice_data_set(DOMINIQUE, 2)
    y, x = np.mgrid[0:128, 0:128]
    values = (x * y * 3) % (1 << stored) - ((1 << stored - 1) if signed else 0)
    allocated = 8 if stored == 8 else 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = allocated, stored, stored - 1, signed
    ds.PixelData = values.astype(f"{'i' if signed else 'u'}{allocated // 8}").tobytes()
    ds["PixelData"].VR = "OB" if allocated == 8 else "OW"
    ds.PhotometricInterpretation = interpretation
    path = saved(ds, tmp_path / "image.dcm")
    state = changed(state_of(path), whole_range)
    assert dcmread(state).PresentationLUTShape == ("INVERSE" if interpretation == "MONOCHROME1" else "IDENTITY")
    first = agree(path, changed(state, lambda ds: setattr(ds, "PresentationLUTShape", "IDENTITY")))
    other = agree(path, changed(state, lambda ds: setattr(ds, "PresentationLUTShape", "INVERSE")))
    assert np.abs(first + other - 255).max() <= 1
    assert first[0, 0] == 0  # the lowest that there can be


def test_a_frame_has_its_own_window(tmp_path):
    ds = slice_data_set(DOMINIQUE, 2)
    ds.NumberOfFrames = 2
    ds.PixelData = ds.PixelData * 2
    path = saved(ds, tmp_path / "image.dcm")
    state = state_of(path)

    def each(ds):
        one, other = Dataset(), Dataset()
        for item, frame, center in ((one, 1, "-600"), (other, 2, "40")):
            reference = Dataset()
            reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
            reference.ReferencedSOPInstanceUID = dcmread(path).SOPInstanceUID
            reference.ReferencedFrameNumber = frame
            item.ReferencedImageSequence = [reference]
            item.WindowCenter, item.WindowWidth = center, "700"
        ds.SoftcopyVOILUTSequence = [one, other]

    changed(state, each)
    one, other = (agree(path, state, frame=frame) for frame in (1, 2))
    assert np.abs(one - other).mean() > 10


def displayed(left, top, right, bottom, mode="SCALE TO FIT", **more):
    def change(ds):
        item = ds.DisplayedAreaSelectionSequence[0]
        item.DisplayedAreaTopLeftHandCorner, item.DisplayedAreaBottomRightHandCorner = [left, top], [right, bottom]
        item.PresentationSizeMode = mode
        for keyword, value in more.items():
            setattr(item, keyword, value)

    return change


def test_the_displayed_area_is_what_dcmtk_cuts_out(image):
    state = changed(state_of(image), displayed(21, 31, 60, 90))
    reference = by_dcmtk("dcm2pnm", image, "+Wi", "1", "+C", "20", "30", "40", "60")
    assert np.abs(ours(image, state) - reference).max() <= 1
    assert reference.std() > 5


def test_the_corners_of_a_turned_area_are_still_the_image_s(image):
    """Rotated by 90: the first corner is what is seen at the top left, which is the area's bottom left."""
    state = changed(state_of(image), lambda ds: (displayed(21, 90, 60, 31)(ds), turned(90, "N")(ds)))
    reference = by_dcmtk("dcm2pnm", image, "+Wi", "1", "+C", "20", "30", "40", "60", "+Rr")
    assert reference.shape == (40, 60)
    assert np.abs(ours(image, state) - reference).max() <= 1


def test_an_area_beyond_the_image_is_black_there(image):
    drawn = ours(image, changed(state_of(image), displayed(-9, 1, 128, 138)))
    whole = ours(image, state_of(image))
    assert drawn.shape == (138, 138)
    assert (drawn[:128, 10:] == whole).all()
    assert not drawn[128:].any()
    assert not drawn[:, :10].any()


def test_how_large_an_area_is(image):
    def shape(change, viewport=None):
        return ours(image, changed(state_of(image), change), viewport=viewport).shape

    magnified = displayed(1, 1, 40, 60, "MAGNIFY", PresentationPixelMagnificationRatio=2.5)
    assert shape(magnified) == (150, 100)
    assert shape(magnified, Region(50, 50)) == (50, 33)
    assert shape(displayed(1, 1, 40, 60, "TRUE SIZE")) == (60, 40)
    assert shape(displayed(1, 1, 40, 60), Region(200, 120)) == (120, 80)
    squared = displayed(1, 1, 40, 60, PresentationPixelSpacing=["2", "1"])
    assert shape(squared) == (120, 40)
    assert shape(lambda ds: (squared(ds), turned(90, "N")(ds))) == (40, 120)
    assert shape(displayed(1, 1, 100, 100, "MAGNIFY", PresentationPixelMagnificationRatio=1000)) == (4096, 4096)


def shut(kind, value=0xFFFF, **more):
    def change(ds):
        ds.ShutterShape, ds.ShutterPresentationValue = kind, value
        for keyword, given in more.items():
            setattr(ds, f"Shutter{keyword}" if "Edge" in keyword else keyword, given)

    return change


def test_shutters(image):
    whole = ours(image, state_of(image))
    rows, columns = np.mgrid[1:129, 1:129]
    edges = {"LeftVerticalEdge": 20, "RightVerticalEdge": 100, "UpperHorizontalEdge": 30, "LowerHorizontalEdge": 90}
    rectangle = (columns >= 20) & (columns <= 100) & (rows >= 30) & (rows <= 90)
    circle = np.hypot(rows - 50, columns - 70) <= 40
    disc = {"CenterOfCircularShutter": [50, 70], "RadiusOfCircularShutter": 40}
    for kind, more, seen in (
        ("RECTANGULAR", edges, rectangle),
        ("CIRCULAR", disc, circle),
        (["RECTANGULAR", "CIRCULAR"], {**edges, **disc}, rectangle & circle),
    ):
        drawn = ours(image, changed(state_of(image), shut(kind, **more)))
        assert (drawn[seen] == whole[seen]).all()
        assert (drawn[~seen] == 255).all()
    gray = ours(image, changed(state_of(image), shut("CIRCULAR", 0x8080, **disc)))
    assert (gray[~circle] == 128).all()
    # Rows and columns of a triangle.
    corners = [10, 64, 100, 120, 100, 10]
    drawn = ours(image, changed(state_of(image), shut("POLYGONAL", VerticesOfThePolygonalShutter=corners)))
    for row, column, shown in ((12, 64, True), (95, 20, True), (98, 110, True), (12, 40, False), (105, 64, False)):
        assert drawn[row - 1, column - 1] == (whole[row - 1, column - 1] if shown else 255)


def test_a_colour_shutter_makes_a_colour_picture(image):
    """Pure red of sRGB is L 54.29, a 80.81, b 69.89 under D50."""
    lab = [round(54.29 * 655.35), round((80.81 + 128) * 257), round((69.89 + 128) * 257)]
    disc = {"CenterOfCircularShutter": [64, 64], "RadiusOfCircularShutter": 20}
    drawn = ours(
        image,
        changed(state_of(image), shut("CIRCULAR", ShutterPresentationColorCIELabValue=lab, **disc)),
    )
    assert drawn.shape == (128, 128, 3)
    assert np.abs(drawn[0, 0] - (255, 0, 0)).max() <= 1
    assert len(set(drawn[63, 63].tolist())) == 1


def overlaid(group, **more):
    plane = np.zeros((128, 128), np.uint8)
    plane[40:50, 60:100] = 1

    def change(ds):
        for element, vr, value in (
            (0x0010, "US", 128),
            (0x0011, "US", 128),
            (0x0040, "CS", "G"),
            (0x0050, "SS", [1, 1]),
            (0x0100, "US", 1),
            (0x0102, "US", 0),
            (0x3000, "OW", np.packbits(plane.ravel(), bitorder="little").tobytes()),
        ):
            ds.add_new((group, element), vr, value)
        for keyword, value in more.items():
            setattr(ds, keyword, value)

    return plane.astype(bool), change


def activated(group):
    def change(ds):
        ds.add_new((group, 0x1001), "CS", "LAYER")
        layer = Dataset()
        layer.GraphicLayer, layer.GraphicLayerOrder = "LAYER", 1
        ds.GraphicLayerSequence = [layer]

    return change


def test_an_overlay_is_shown_when_its_layer_is_activated(image):
    plain = ours(image, state_of(image))
    plane, add = overlaid(0x6002)
    changed(image, add)
    bare = changed(state_of(image, "-o"), lambda _: None)
    assert (ours(image, bare) == plain).all()
    drawn = ours(image, changed(bare, activated(0x6002)))
    assert (drawn[plane] == 255).all()
    assert (drawn[~plane] == plain[~plane]).all()


def test_an_overlay_of_the_state_s_own(image):
    plain = ours(image, state_of(image))
    plane, add = overlaid(0x6004)
    drawn = ours(image, changed(state_of(image), lambda ds: (add(ds), activated(0x6004)(ds), turned(180, "N")(ds))))
    assert (drawn[plane[::-1, ::-1]] == 255).all()
    assert (drawn[~plane[::-1, ::-1]] == plain[::-1, ::-1][~plane[::-1, ::-1]]).all()


def test_a_shutter_of_bits(image):
    plain = ours(image, state_of(image))
    plane, add = overlaid(0x6006, ShutterShape="BITMAP", ShutterOverlayGroup=0x6006, ShutterPresentationValue=0)
    drawn = ours(image, changed(state_of(image), add))
    assert not drawn[plane].any()
    assert (drawn[~plane] == plain[~plane]).all()
