"""Annotations of presentation states where the standard's geometry puts them, and states that mean harm."""

import io
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from gateway.demo.ct_phantom import DOMINIQUE, slice_data_set
from gateway.dicom.drawing import Drawing
from gateway.dicom.presentation import opened, references
from gateway.dicom.presentation_colours import colour_of
from gateway.dicom.presentation_drawing import render
from gateway.errors import GatewayError, InvalidContent, NotFound, Unsupported

GRAYSCALE, COLOUR = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.11.2"
BLACK = 1000
RED = [round(54.29 * 655.35), round((80.81 + 128) * 257), round((69.89 + 128) * 257)]  # of sRGB, under D50
SHARED = "1.2.250.1.999999.2026.11"


def item(**given):
    ds = Dataset()
    for keyword, value in given.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A picture of 800 × 800 dark pixels, all alike."""
    ds = slice_data_set(DOMINIQUE, 1)
    ds.Rows = ds.Columns = 800
    ds.PixelData = np.full((800, 800), BLACK, np.uint16).tobytes()
    ds.SOPInstanceUID = SHARED
    path = tmp_path_factory.mktemp("image") / "image.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def state(**given):
    """A state that shows the image as gray as 51 of 255, and what is given."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = GRAYSCALE, generate_uid()
    ds.SpecificCharacterSet = "ISO_IR 192"
    reference = item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=SHARED)
    ds.ReferencedSeriesSequence = [item(SeriesInstanceUID="1.2.3", ReferencedImageSequence=[reference])]
    window = item(WindowCenter=BLACK + 300.5, WindowWidth=1001)  # 20 % of the way from its lower end
    ds.SoftcopyVOILUTSequence = [window]
    ds.PresentationLUTShape = "IDENTITY"
    for keyword, value in given.items():
        setattr(ds, keyword, value)
    return ds


def graphic(kind, data, *, units="PIXEL", filled="N", **more):
    return item(
        GraphicAnnotationUnits=units,
        GraphicDimensions=2,
        NumberOfGraphicPoints=min(len(data) // 2, 0xFFFF),
        GraphicData=data,
        GraphicType=kind,
        GraphicFilled=filled,
        **more,
    )


def text(words, box=None, *, units="PIXEL", anchor=None, visible="N", justified="LEFT"):
    made = item(UnformattedTextValue=words)
    if box is not None:
        made.BoundingBoxAnnotationUnits, made.BoundingBoxTextHorizontalJustification = units, justified
        made.BoundingBoxTopLeftHandCorner, made.BoundingBoxBottomRightHandCorner = box[:2], box[2:]
    if anchor is not None:
        made.AnchorPointAnnotationUnits, made.AnchorPoint, made.AnchorPointVisibility = units, anchor, visible
    return made


def annotated(*objects, layer="A", **more):
    graphics = [one for one in objects if "GraphicType" in one]
    texts = [one for one in objects if "GraphicType" not in one]
    made = item(GraphicLayer=layer, **more)
    if graphics:
        made.GraphicObjectSequence = graphics
    if texts:
        made.TextObjectSequence = texts
    return {"GraphicAnnotationSequence": [made]}


def drawn(image, ds, **asked):
    content = render(image, ds, SHARED, media_type="image/png", **asked)
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def marked(image, **given):
    """Where the picture is another than without annotations."""
    return drawn(image, state(**given)) != 51


def near(points, *, radius):
    """Pixels that are no further from these points than a radius, across and down."""
    found = np.zeros((800, 800), np.uint8)
    x, y = np.clip(np.asarray(points).astype(int), 0, 799).T
    found[y, x] = 1
    return np.asarray(Image.fromarray(found).filter(ImageFilter.MaxFilter(2 * radius + 1))).astype(bool)


def along(points, radius):
    """Pixels around a line through points."""
    return near(np.concatenate([np.linspace(a, b, 800) for a, b in pairwise(points)]), radius=radius)


def is_drawn(picture, points):
    """Whether a thin line leads through all of these points, and nothing is drawn further away."""
    assert not (picture & ~along(points, 6)).any()
    for x, y in np.concatenate([np.linspace(a, b, 25) for a, b in pairwise(points)]):
        assert picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].any()


def test_the_plain_picture_is_what_the_window_says(image):
    assert (drawn(image, state()) == 51).all()


def test_a_polyline_in_pixels_leads_through_their_upper_left_corners(image):
    arrow = [100, 100, 400, 300, 360, 300, 400, 300, 390, 260]
    is_drawn(marked(image, **annotated(graphic("POLYLINE", arrow))), np.reshape(arrow, (-1, 2)))


def test_a_polyline_in_shares_of_what_is_displayed(image):
    """Of the picture as it is turned and cut out: the frame stays where it is."""
    corner = [0.1, 0.25, 0.75, 0.25, 0.75, 0.5]
    points = np.array([[80, 200], [600, 200], [600, 400]])
    for more in ({}, {"ImageRotation": 90, "ImageHorizontalFlip": "Y"}):
        is_drawn(marked(image, **annotated(graphic("POLYLINE", corner, units="DISPLAY")), **more), points)


@pytest.mark.parametrize(
    ("rotation", "flip", "points"),
    [
        (0, "N", [[100, 100], [400, 200]]),
        (90, "N", [[700, 100], [600, 400]]),
        (180, "N", [[700, 700], [400, 600]]),
        (270, "N", [[100, 700], [200, 400]]),
        (0, "Y", [[700, 100], [400, 200]]),
        (90, "Y", [[100, 100], [200, 400]]),
    ],
)
def test_what_is_drawn_turns_with_the_image(image, rotation, flip, points):
    given = annotated(graphic("POLYLINE", [100, 100, 400, 200]))
    is_drawn(marked(image, ImageRotation=rotation, ImageHorizontalFlip=flip, **given), np.array(points))


def test_what_is_drawn_follows_the_displayed_area(image):
    """400 × 400 pixels of it, twice as large: at least so large that words can be read."""
    area = item(DisplayedAreaTopLeftHandCorner=[101, 201], DisplayedAreaBottomRightHandCorner=[500, 600])
    area.PresentationSizeMode = "SCALE TO FIT"
    given = annotated(graphic("POLYLINE", [110, 210, 300, 400]))
    picture = marked(image, DisplayedAreaSelectionSequence=[area], **given)
    assert picture.shape == (800, 800)
    is_drawn(picture, np.array([[20, 20], [400, 400]]))


@pytest.mark.filterwarnings("ignore")
def test_a_line_of_more_points_than_an_explicit_length_counts(image, tmp_path):
    """20 000 of them: 160 000 bytes, which go by the name of UN."""
    angles = np.linspace(0, 2 * np.pi, 20_000)
    circle = np.stack([400 + 150 * np.cos(angles), 300 + 150 * np.sin(angles)], axis=1)
    state(**annotated(graphic("POLYLINE", circle.ravel().tolist()))).save_as(
        tmp_path / "long.dcm", enforce_file_format=True
    )
    is_drawn(drawn(image, tmp_path / "long.dcm") != 51, circle[::200])


def test_a_circle_and_an_ellipse(image):
    angles = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([400 + 150 * np.cos(angles), 300 + 150 * np.sin(angles)], axis=1)
    is_drawn(marked(image, **annotated(graphic("CIRCLE", [400, 300, 400, 450]))), circle)
    ellipse = np.stack([300 + 200 * np.cos(angles), 500 + 80 * np.sin(angles)], axis=1)
    is_drawn(marked(image, **annotated(graphic("ELLIPSE", [100, 500, 500, 500, 300, 420, 300, 580]))), ellipse)


def test_an_ellipse_that_leans(image):
    """Its longer axis from lower left to upper right."""
    corner = 120 / np.sqrt(2)
    data = [400 - corner, 400 + corner, 400 + corner, 400 - corner, 370, 370, 430, 430]
    picture = marked(image, **annotated(graphic("ELLIPSE", data)))
    assert picture[int(400 + corner) - 4 : int(400 + corner) + 4, int(400 - corner) - 4 : int(400 - corner) + 4].any()
    assert not picture[
        int(400 - corner) - 4 : int(400 - corner) + 4, int(400 - corner) - 4 : int(400 - corner) + 4
    ].any()


def test_a_point(image):
    picture = marked(image, **annotated(graphic("POINT", [250, 350])))
    assert picture[350, 250]
    assert not (picture & ~near([[250, 350]], radius=9)).any()


def test_a_smooth_curve_leads_through_its_points_and_has_no_corners(image):
    points = np.array([[100, 400], [300, 200], [500, 400], [700, 200]])
    smooth = marked(image, **annotated(graphic("INTERPOLATED", points.ravel().tolist())))
    straight = marked(image, **annotated(graphic("POLYLINE", points.ravel().tolist())))
    for x, y in points[1:-1]:
        assert smooth[y - 2 : y + 3, x - 2 : x + 3].any()
    assert (smooth & ~along(points, 6)).any()
    assert (smooth != straight).sum() > 500


@pytest.mark.parametrize("kind", ["POLYLINE", "INTERPOLATED", "CIRCLE", "ELLIPSE"])
def test_what_is_filled_lets_the_image_through(image, kind):
    data = {
        "CIRCLE": [400, 400, 500, 400],
        "ELLIPSE": [300, 400, 500, 400, 400, 320, 400, 480],
    }.get(kind, [300, 300, 500, 300, 500, 500, 300, 500, 300, 300])
    hollow, filled = (drawn(image, state(**annotated(graphic(kind, data, filled=how)))) for how in "NY")
    assert hollow[400, 400] == 51
    assert 51 < filled[400, 400] < 200
    assert filled[100, 100] == 51


def test_layers_in_their_order_and_in_their_colours(image):
    """Red lies over blue where they cross: it has the higher order, whichever was written first."""
    cross = [
        item(GraphicLayer="RED", GraphicObjectSequence=[graphic("POLYLINE", [100, 400, 700, 400])]),
        item(GraphicLayer="GRAY", GraphicObjectSequence=[graphic("POLYLINE", [400, 100, 400, 700])]),
    ]
    layers = [
        item(GraphicLayer="RED", GraphicLayerOrder=2, GraphicLayerRecommendedDisplayCIELabValue=RED),
        item(GraphicLayer="GRAY", GraphicLayerOrder=1, GraphicLayerRecommendedDisplayGrayscaleValue=0xC0C0),
    ]
    for order in (cross, cross[::-1]):
        picture = drawn(image, state(GraphicAnnotationSequence=order, GraphicLayerSequence=layers))
        assert picture.shape == (800, 800, 3)
        assert np.abs(picture[400, 200] - (255, 0, 0)).max() <= 3
        assert np.abs(picture[200, 400] - 192).max() <= 3
        assert np.abs(picture[400, 400] - (255, 0, 0)).max() <= 3
    gray = drawn(image, state(GraphicAnnotationSequence=cross[1:], GraphicLayerSequence=layers))
    assert gray.ndim == 2


def test_a_line_s_own_colour_and_thickness(image):
    style = item(PatternOnColorCIELabValue=RED, LineThickness=6.0)
    thick = drawn(image, state(**annotated(graphic("POLYLINE", [100, 400, 700, 400], LineStyleSequence=[style]))))
    assert np.abs(thick[400, 300] - (255, 0, 0)).max() <= 3
    assert (np.ptp(thick[:, 300], axis=-1) > 100).sum() >= 8


def ink(picture, left, top, right, bottom):
    return (picture[top:bottom, left:right]).mean()


def test_words_stand_within_their_box(image):
    box = [200, 300, 600, 400]
    for justified, (first, last) in {"LEFT": (200, 400), "CENTER": (300, 500), "RIGHT": (400, 600)}.items():
        picture = marked(image, **annotated(text("Nodule", box, justified=justified)))
        assert not picture[:, :198].any()
        assert not picture[:, 602:].any()
        assert not picture[:298].any()
        assert not picture[402:].any()
        assert ink(picture, first, 300, last, 400) > 0.04
    display = marked(image, **annotated(text("Nodule", [0.25, 0.375, 0.75, 0.5], units="DISPLAY")))
    assert (display == marked(image, **annotated(text("Nodule", box)))).all()


def test_letters_are_not_empty_boxes(image):
    """é is not e, and neither is what stands for a letter that no font has."""
    seen = [
        marked(image, **annotated(text(word, [200, 300, 600, 400]))).tobytes()
        for word in ("é", "e", "è", "µ", "\uf8f0")
    ]
    assert len(set(seen)) == 5


@pytest.mark.parametrize(
    ("rotation", "flip", "box", "side"),
    [
        (0, "N", [100, 100, 400, 150], (100, 100, 400, 150)),
        # Corners as a person saw them on the turned image: words stand upright there.
        (90, "N", [100, 700, 150, 400], (100, 100, 400, 150)),
        (0, "Y", [700, 100, 400, 150], (100, 100, 400, 150)),
        # Corners as the image has them: words turn with it.
        (90, "N", [100, 100, 400, 150], (650, 100, 700, 400)),
        (180, "N", [100, 100, 400, 150], (400, 650, 700, 700)),
    ],
)
def test_words_run_from_the_first_corner_of_their_box_to_the_other(image, rotation, flip, box, side):
    picture = marked(image, ImageRotation=rotation, ImageHorizontalFlip=flip, **annotated(text("I.......", box)))
    left, top, right, bottom = side
    assert not picture[: top - 3].any()
    assert not picture[bottom + 3 :].any()
    part = picture[top:bottom, left:right]
    upright = right - left > bottom - top
    assert part.any()
    # The I is the heaviest letter: it stands where the words begin.
    weight = part.sum(axis=0 if upright else 1)
    half = len(weight) // 2
    first, last = weight[:half].sum(), weight[half:].sum()
    assert (last > first) if rotation == 180 else (first > last)


def test_words_beside_an_anchor_and_the_line_to_it(image):
    alone = marked(image, **annotated(text("T", anchor=[300.0, 300.0])))
    assert alone[270:330, 300:345].any()
    assert alone[270:330, 300:345].sum() == alone.sum()
    both = annotated(text("T", [500, 300, 540, 340], anchor=[300.0, 320.0], visible="Y"))
    picture = marked(image, **both)
    for x in (310, 400, 490):
        assert picture[316:325, x].any()
    hidden = annotated(text("T", [500, 300, 540, 340], anchor=[300.0, 320.0], visible="N"))
    assert not marked(image, **hidden)[316:325, 400].any()


def test_words_outside_of_what_is_displayed_are_not_drawn(image):
    assert not marked(image, **annotated(text("Ailleurs", [900, 900, 1000, 950]))).any()
    assert not marked(image, **annotated(text("Ailleurs", anchor=[-10.0, 20.0], visible="Y"))).any()
    assert marked(image, **annotated(text("Au bord", [780, 300, 900, 320])))[300:340].any()


def test_long_words_are_broken_and_stay_in_the_picture(image):
    picture = marked(image, **annotated(text("Lésion " * 40, [10, 300, 790, 320])))
    assert ink(picture, 0, 300, 800, 330) > 0.02
    assert ink(picture, 0, 330, 800, 360) > 0.02


def test_an_annotation_of_another_image_is_not_drawn(image):
    reference = item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID="1.2.3")
    line = graphic("POLYLINE", [100, 100, 400, 300])
    assert not marked(image, **annotated(line, ReferencedImageSequence=[reference])).any()
    reference.ReferencedSOPInstanceUID = SHARED
    assert marked(image, **annotated(line, ReferencedImageSequence=[reference])).any()
    reference.ReferencedFrameNumber = 2
    assert not marked(image, **annotated(line, ReferencedImageSequence=[reference])).any()


def test_a_small_picture_with_words_is_made_larger_by_a_whole_number(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    ds.SOPInstanceUID = SHARED
    ds.save_as(tmp_path / "small.dcm", enforce_file_format=True)
    assert drawn(tmp_path / "small.dcm", state()).shape == (128, 128)
    given = annotated(graphic("POINT", [1, 1]))
    assert drawn(tmp_path / "small.dcm", state(**given)).shape == (768, 768)


def test_a_colour_state_leaves_colours_alone(tmp_path):
    ds = slice_data_set(DOMINIQUE, 1)
    for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, keyword)
    ds.SOPInstanceUID, ds.PhotometricInterpretation, ds.SamplesPerPixel, ds.PlanarConfiguration = SHARED, "RGB", 3, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[:, :, 0] = np.arange(128)
    pixels[:, :, 2] = np.arange(128)[:, None]
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB"
    ds.save_as(tmp_path / "colour.dcm", enforce_file_format=True)
    shutter = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [64, 64], "RadiusOfCircularShutter": 30}
    given = state(
        SOPClassUID=COLOUR, ImageRotation=90, ImageHorizontalFlip="N", ShutterPresentationValue=0xFFFF, **shutter
    )
    picture = drawn(tmp_path / "colour.dcm", given)
    assert (picture[0, 0] == 255).all()
    assert (picture[64, 64] == np.rot90(pixels, -1)[64, 64]).all()


# ---- what is refused


def refusal(call):
    with pytest.raises(GatewayError) as raised:
        call()
    return raised.value.code


LINE = [0, 0, 9, 9]
TABLE = {"LUTDescriptor": [256, 0, 16], "LUTData": b"\0" * 512}
HOSTILE = {
    "another kind": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.4"}, "dicom-presentation-kind"),
    "a mask": ({"MaskSubtractionSequence": [item(MaskOperation="AVG_SUB")]}, "dicom-presentation-kind"),
    "no image": ({"ReferencedSeriesSequence": []}, "dicom-presentation"),
    "another image": (
        {
            "ReferencedSeriesSequence": [
                item(SeriesInstanceUID="1.2", ReferencedImageSequence=[item(ReferencedSOPInstanceUID="1.2.3")])
            ]
        },
        "dicom-presentation",
    ),
    "a slanted rotation": ({"ImageRotation": 45}, "dicom-presentation"),
    "a window of nothing": ({"SoftcopyVOILUTSequence": [item(WindowCenter=1, WindowWidth=0)]}, "dicom-presentation"),
    "a window without width": ({"SoftcopyVOILUTSequence": [item(WindowCenter=1)]}, "dicom-presentation"),
    "a short table": ({"PresentationLUTSequence": [item(**{**TABLE, "LUTData": b"\0" * 500})]}, "dicom-presentation"),
    "a long table": ({"PresentationLUTSequence": [item(**{**TABLE, "LUTData": b"\0" * 5000})]}, "dicom-presentation"),
    "a table of 40 bits": (
        {"PresentationLUTSequence": [item(**{**TABLE, "LUTDescriptor": [256, 0, 40]})]},
        "dicom-presentation",
    ),
    "a table of nothing": ({"PresentationLUTSequence": [Dataset()]}, "dicom-presentation"),
    "a point that is not a number": (annotated(graphic("POLYLINE", [0, 0, float("nan"), 1])), "dicom-presentation"),
    "a point at no end": (annotated(graphic("POLYLINE", [0, 0, float("inf"), 1])), "dicom-presentation"),
    "a point far away": (annotated(graphic("POLYLINE", [0, 0, 1e30, 1])), "dicom-presentation-limit"),
    "a point many pictures away": (
        annotated(graphic("POLYLINE", [0, 0, 1e5, 1], units="DISPLAY")),
        "dicom-presentation-limit",
    ),
    "half a point": (annotated(graphic("POLYLINE", [0, 0, 9])), "dicom-presentation"),
    "a circle of one point": (annotated(graphic("CIRCLE", [0, 0])), "dicom-presentation"),
    "an unknown shape": (annotated(graphic("SPIRAL", LINE)), "dicom-presentation"),
    "an unknown measure": (annotated(graphic("POLYLINE", LINE, units="MATRIX")), "dicom-presentation"),
    "too many objects": (annotated(*[graphic("POLYLINE", LINE)] * 2001), "dicom-presentation-limit"),
    "a million points": (annotated(graphic("POLYLINE", [1.0] * 2_000_000, filled="Y")), "dicom-presentation-limit"),
    "many points in many lines": (
        annotated(*[graphic("POLYLINE", [1.0] * 40_000)] * 6),
        "dicom-presentation-limit",
    ),
    "a long text": (annotated(*[text("x" * 1000, [0, 0, 9, 9])] * 21), "dicom-presentation-limit"),
    "words without a place": (annotated(text("x")), "dicom-presentation"),
    "too many layers": (
        {"GraphicLayerSequence": [item(GraphicLayer=f"L{at}", GraphicLayerOrder=at) for at in range(300)]},
        "dicom-presentation-limit",
    ),
    "an endless area": (
        {
            "DisplayedAreaSelectionSequence": [
                item(DisplayedAreaTopLeftHandCorner=[-(2**31), 1], DisplayedAreaBottomRightHandCorner=[2**31 - 1, 9])
            ]
        },
        "dicom-presentation-limit",
    ),
    "a large area": (
        {
            "DisplayedAreaSelectionSequence": [
                item(DisplayedAreaTopLeftHandCorner=[1, 1], DisplayedAreaBottomRightHandCorner=[100_000, 100_000])
            ]
        },
        "dicom-presentation-limit",
    ),
    "an area elsewhere": (
        {
            "DisplayedAreaSelectionSequence": [
                item(DisplayedAreaTopLeftHandCorner=[801, 1], DisplayedAreaBottomRightHandCorner=[900, 9])
            ]
        },
        "dicom-presentation",
    ),
    "an unknown shutter": ({"ShutterShape": "HEXAGONAL"}, "dicom-presentation"),
    "a shutter without edges": ({"ShutterShape": "RECTANGULAR"}, "dicom-presentation"),
    "a shutter of two points": (
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 2, 2]},
        "dicom-presentation",
    ),
    "a shutter of too many": (
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1] * 30_000},
        "dicom-presentation-limit",
    ),
    "a shutter of no plane": ({"ShutterShape": "BITMAP", "ShutterOverlayGroup": 0x7FE0}, "dicom-presentation"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("given", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_meant_is_refused_by_name(image, tmp_path, given, expected):
    path = tmp_path / "state.dcm"
    state(**given).save_as(path, enforce_file_format=True, overwrite=True)
    assert refusal(lambda: render(image, path, SHARED)) == expected


def test_a_frame_that_does_not_exist(image):
    with pytest.raises(NotFound):
        render(image, state(), SHARED, 2)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        file.truncate((32 << 20) + 1)
    with pytest.raises(InvalidContent, match="33554432 octets") as raised:
        opened(path)
    assert raised.value.code == "dicom-presentation-limit"


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "x.dcm").write_bytes(b"\0" * 500)
    assert refusal(lambda: opened(tmp_path / "x.dcm")) in ("dicom-unreadable", "dicom-presentation-kind")


def test_points_far_outside_of_a_small_area_take_no_time(image):
    """One pixel over a whole screen: what is drawn lies some million pixels away."""
    area = item(DisplayedAreaTopLeftHandCorner=[1, 1], DisplayedAreaBottomRightHandCorner=[1, 1])
    area.PresentationSizeMode, area.PresentationPixelMagnificationRatio = "MAGNIFY", 1000.0
    zigzag = np.tile([131_000, -131_000, -131_000, 131_000], 500).tolist()
    objects = [graphic(kind, zigzag, filled="Y") for kind in ("POLYLINE", "INTERPOLATED")]
    objects += [graphic("CIRCLE", [0, 0, 131_000, 0], filled="Y"), graphic("POINT", [131_000, 0])]
    ds = state(DisplayedAreaSelectionSequence=[area], **annotated(*objects))
    one = Drawing(processes=1)
    try:
        assert drawn(image, ds).shape == (1000, 1000)
    finally:
        one.close()


def test_colours_that_are_none_are_not_taken():
    layer = item(GraphicLayerRecommendedDisplayGrayscaleValue=0xFFFF)
    assert colour_of(layer, "x", None, "GraphicLayerRecommendedDisplayGrayscaleValue") == (255, 255, 255)
    assert colour_of(item(TextColorCIELabValue=[65535, 32896, 32896]), "TextColorCIELabValue") == (255, 255, 255)
    assert colour_of(item(TextColorCIELabValue=[0, 32896, 32896]), "TextColorCIELabValue") == (0, 0, 0)
    assert colour_of(item(TextColorCIELabValue=[1, 2]), "TextColorCIELabValue") is None
    assert colour_of(Dataset(), "TextColorCIELabValue") is None


# ---- in the drawing process, damaged at random


@pytest.fixture(scope="module")
def shared():
    one = Drawing(processes=1)
    yield one
    one.close()


@pytest.fixture(scope="module")
def whole():
    """A state with everything in it, as bytes."""
    table = item(LUTDescriptor=[256, 0, 16], LUTData=np.arange(0, 65536, 256).astype("<u2").tobytes())
    table["LUTData"].VR = "OW"
    area = item(DisplayedAreaTopLeftHandCorner=[1, 1], DisplayedAreaBottomRightHandCorner=[700, 700])
    area.PresentationSizeMode = "SCALE TO FIT"
    ds = state(
        PresentationLUTSequence=[table],
        DisplayedAreaSelectionSequence=[area],
        ImageRotation=90,
        ImageHorizontalFlip="Y",
        ShutterShape=["CIRCULAR", "POLYGONAL"],
        CenterOfCircularShutter=[300, 300],
        RadiusOfCircularShutter=200,
        VerticesOfThePolygonalShutter=[10, 10, 500, 10, 500, 500],
        GraphicLayerSequence=[item(GraphicLayer="A", GraphicLayerOrder=1)],
        **annotated(
            graphic("POLYLINE", [100, 100, 400, 300, 0, 9], filled="Y"),
            graphic("ELLIPSE", [100, 500, 500, 500, 300, 420, 300, 580]),
            graphic("INTERPOLATED", [0.1, 0.1, 0.5, 0.2, 0.9, 0.9], units="DISPLAY"),
            text("Lésion", [100, 100, 300, 130], anchor=[50.0, 50.0], visible="Y"),
        ),
    )
    del ds.PresentationLUTShape
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


DAMAGE = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.one_of(st.binary(min_size=1, max_size=4), st.just(struct.pack("<f", 1e38)))),
    min_size=1,
    max_size=6,
)
ASKED = {"instance": SHARED, "media_type": "image/jpeg", "viewport": None, "quality": None}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE, cut=st.integers(0, 1 << 16))
def test_a_damaged_state_is_drawn_or_refused_by_name(shared, image, whole, tmp_path, damage, cut):
    content = bytearray(whole)
    for place, given_bytes in damage:
        at = 300 + place % (len(content) - 310)
        content[at : at + len(given_bytes)] = given_bytes
    if cut % 5 == 0:
        del content[300 + cut % (len(content) - 300) :]
    path = tmp_path / "damaged.dcm"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    codes = set()
    try:
        kind, picture = shared.do("presented", image, key=generate_uid(), beside=str(path), **ASKED)
        assert (kind, picture[:2]) == ("image/jpeg", b"\xff\xd8")
    except (InvalidContent, Unsupported, NotFound) as error:
        codes.add(error.code)
    assert codes <= {"dicom-presentation", "dicom-presentation-limit", "dicom-presentation-kind", "dicom-unreadable"}


def test_the_whole_state_is_drawn_before_it_is_damaged(shared, image, whole, tmp_path):
    (tmp_path / "whole.dcm").write_bytes(whole)
    assert shared.do("presented", image, key="whole", beside=str(tmp_path / "whole.dcm"), **ASKED)[0] == "image/jpeg"
    assert [one.instance for one in references(dcmread(tmp_path / "whole.dcm"))] == [SHARED]
