"""Colours beside LittleCMS's own `transicc`, with the profiles of Debian's colord-data."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.dicom import colours
from gateway.dicom.render import render
from gateway.errors import InvalidContent
from tests.contract.dicom.test_against_dcmtk import saved
from tests.contract.dicom.test_pictures import FILES, picture, ramps

PROFILES = Path("/usr/share/color/icc/colord")

pytestmark = pytest.mark.skipif(
    shutil.which("transicc") is None or not PROFILES.exists(),
    reason="liblcms2-utils or colord-data is not installed (make test installs them as root)",
)

#: An input profile of a space that is wider, of one whose channels are exchanged, and of two with other curves.
NAMES = ("AdobeRGB1998", "SwappedRedAndGreen", "ProPhotoRGB", "ECI-RGBv2")


def input_profile(name: str) -> bytes:
    """As DICOM wants them: of an input device [PS3.3 C.11.15.1.1]."""
    content = (PROFILES / f"{name}.icc").read_bytes()
    return content[:12] + b"scnr" + content[16:]


def by_lcms(values, source, target):
    """Convert colours (rows of three); profiles as files or the tool's own."""
    said = "".join(f"{red} {green} {blue}\n" for red, green, blue in values)
    command = ["transicc", "-n", "-t0", f"-i{source}", f"-o{target}"]
    told = subprocess.run(command, input=said, check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in told.splitlines()]
    return np.array([[float(one) for one in row] for row in rows if len(row) == 3 and row[0][-1].isdigit()])


def some(pixels):
    """Colours from all over a picture."""
    return pixels.reshape(-1, 3)[::67]


def shown(path, wish=None, media_type="image/png", frame=1):
    content = render(path, frame, media_type=media_type, iccprofile=wish)
    one = Image.open(io.BytesIO(content))
    return np.asarray(one), one.info.get("icc_profile")


@pytest.fixture
def coloured(tmp_path):
    """An object with a profile."""

    def make(profile, **more):
        ds = picture("RGB", ramps(3), **more)
        if profile is not None:
            ds.ICCProfile = profile + bytes(len(profile) % 2)
        return saved(ds, tmp_path / "coloured.dcm")

    return make


@pytest.mark.parametrize("name", NAMES)
def test_without_a_wish_a_picture_is_srgb(coloured, name):
    path = coloured(input_profile(name))
    ours, carried = shown(path)
    theirs = by_lcms(some(ramps(3)), PROFILES / f"{name}.icc", "*sRGB")
    assert np.abs(some(ours) - np.clip(theirs, 0, 255)).max() <= 1.5  # lcms interpolates pictures of 8 bits
    assert np.abs(ours.astype(int) - ramps(3)).max() > 20
    assert carried is None


@pytest.mark.parametrize("name", NAMES)
def test_no_profile_and_the_object_s_own_change_no_colour(coloured, name):
    path = coloured(input_profile(name))
    for wish, profile in (("no", None), ("yes", input_profile(name))):
        ours, carried = shown(path, wish)
        assert (ours == ramps(3)).all()
        assert carried == profile
    assert shown(path, "yes", "image/jpeg")[1] == input_profile(name)
    assert shown(path, "no", "image/jpeg")[1] is None


SPACES = {"srgb": "*sRGB", "adobergb": PROFILES / "AdobeRGB1998.icc", "rommrgb": PROFILES / "ProPhotoRGB.icc"}


@pytest.mark.parametrize("wish", SPACES)
@pytest.mark.parametrize("source", [None, *NAMES])
def test_a_space_that_is_wished_for(coloured, tmp_path, wish, source):
    """As others define the space, and as the profile that the picture carries says."""
    path = coloured(input_profile(source) if source else None)
    ours, carried = shown(path, wish)
    known = PROFILES / f"{source}.icc" if source else "*sRGB"
    (tmp_path / "carried.icc").write_bytes(carried)
    for target in (SPACES[wish], tmp_path / "carried.icc"):
        theirs = by_lcms(some(ramps(3)), known, target)
        difference = np.abs(some(ours) - np.clip(theirs, 0, 255))
        assert difference.max() <= 4  # of pictures of 8 bits lcms computes the darkest shades with fewer bits
        assert difference.mean() <= 0.5
    assert shown(path, wish, "image/jpeg")[1] == carried


def test_published_colours_of_adobe_rgb(coloured, tmp_path):
    """The primaries of sRGB in Adobe RGB (1998), as tables print them."""
    pixels = np.zeros((3, 8, 3), np.uint8)
    pixels[0, :, 0] = pixels[1, :, 1] = pixels[2, :, 2] = 255
    ours, _ = shown(saved(picture("RGB", pixels), tmp_path / "primaries.dcm"), "adobergb")
    assert ours[:, 0].tolist() == [[219, 0, 0], [144, 255, 60], [0, 0, 250]]


@pytest.mark.parametrize(("label", "name"), [("ADOBERGB", "AdobeRGB1998"), ("ROMMRGB", "ProPhotoRGB")])
def test_a_space_that_the_object_only_names(coloured, label, name):
    ours, _ = shown(coloured(None, ColorSpace=label))
    theirs = by_lcms(some(ramps(3)), PROFILES / f"{name}.icc", "*sRGB")
    assert np.abs(some(ours) - np.clip(theirs, 0, 255)).max() <= 2.5
    assert (shown(coloured(None, ColorSpace="SRGB"))[0] == ramps(3)).all()
    assert (shown(coloured(None, ColorSpace="OTHER"))[0] == ramps(3)).all()


@pytest.mark.parametrize("name", ["examples_palette.dcm", "examples_ybr_color.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_whatever_becomes_rgb_is_turned(tmp_path, name):
    before, _ = shown(FILES / name)
    ds = dcmread(FILES / name)
    ds.ICCProfile = input_profile("SwappedRedAndGreen")
    after, _ = shown(saved(ds, tmp_path / "one.dcm"))
    assert np.abs(after.astype(int) - before[..., [1, 0, 2]]).max() <= 2
    assert before.std() > 5


def test_grays_have_no_profile_unless_one_is_wished_for():
    path = FILES / "MR_small.dcm"
    gray, carried = shown(path)
    assert (gray.ndim, carried) == (2, None)
    assert (shown(path, "no")[0] == gray).all()
    for wish in ("yes", "srgb"):
        ours, carried = shown(path, wish)
        assert (ours == gray[..., None]).all()
        assert carried[16:20] == b"RGB "
    turned, _ = shown(path, "rommrgb")
    assert np.abs(turned.max(axis=2).astype(int) - turned.min(axis=2)).max() <= 1
    assert (turned != gray[..., None]).any()


def test_each_frame_has_the_profile_of_its_optical_path(tmp_path):
    """Two stains of one slide: each light has its own profile, and frames say which lit them."""
    ds = picture("RGB", ramps(3), NumberOfFrames=3)
    ds.PixelData = ds.PixelData * 3
    ds["PixelData"].VR = "OB"
    paths = []
    for name in ("AdobeRGB1998", "SwappedRedAndGreen"):
        path = Dataset()
        path.OpticalPathIdentifier, path.ICCProfile = name[:4], input_profile(name)
        paths.append(path)
    ds.OpticalPathSequence = paths
    groups = []
    for name in ("Swap", "Adob", None):
        group = Dataset()
        if name:
            lit = Dataset()
            lit.OpticalPathIdentifier = name
            group.OpticalPathIdentificationSequence = [lit]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    path = saved(ds, tmp_path / "slide.dcm")
    swapped, adobe, first = (shown(path, frame=number)[0].astype(int) for number in (1, 2, 3))
    assert np.abs(swapped - ramps(3)[..., [1, 0, 2]]).max() <= 2
    theirs = by_lcms(some(ramps(3)), PROFILES / "AdobeRGB1998.icc", "*sRGB")
    assert np.abs(some(adobe) - np.clip(theirs, 0, 255)).max() <= 1.5
    assert (first == adobe).all()


def broken(kind: str) -> bytes:
    whole = input_profile("AdobeRGB1998")
    return {
        "nothing of a profile": b"\xff" * 3000,
        "shorter than its head": whole[:100],
        "cut": whole[:3000],
        "said to be longer": (1 << 30).to_bytes(4) + whole[4:],
        "its tags elsewhere": whole[:140] + b"\xff" * 200 + whole[340:],
        "of a printer": whole[:12] + b"prtr" + whole[16:],
        "of a link": whole[:12] + b"link" + whole[16:],
        "of inks": whole[:16] + b"CMYK" + whole[20:],
        "of names": (PROFILES / "x11-colors.icc").read_bytes(),
        "too long": (colours.MAX_PROFILE_BYTES + 2).to_bytes(4) + whole[4:] + bytes(colours.MAX_PROFILE_BYTES),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        *("nothing of a profile", "shorter than its head", "cut", "said to be longer", "its tags elsewhere"),
        *("of a printer", "of a link", "of inks", "of names", "too long"),
    ],
)
def test_a_profile_that_cannot_be_used_hides_no_picture(coloured, kind):
    path = coloured(broken(kind))
    assert (shown(path)[0] == ramps(3)).all()
    assert (shown(path, "no")[0] == ramps(3)).all()
    for wish in ("yes", "srgb", "adobergb", "rommrgb"):
        with pytest.raises(InvalidContent) as refusal:
            shown(path, wish)
        assert refusal.value.code == "dicom-icc-profile"
    if kind == "too long":
        assert str(colours.MAX_PROFILE_BYTES) in refusal.value.text


def test_an_empty_profile_is_none(coloured):
    path = coloured(b"")
    assert (shown(path)[0] == ramps(3)).all()
    assert (shown(path, "srgb")[0] == ramps(3)).all()
    assert shown(path, "yes")[1] == shown(coloured(None), "yes")[1]


def test_a_gif_carries_no_profile_and_is_srgb(coloured):
    path = coloured(input_profile("SwappedRedAndGreen"))
    content = render(path, media_type="image/gif", iccprofile="yes")
    one = Image.open(io.BytesIO(content))
    assert "icc_profile" not in one.info
    assert np.abs(np.asarray(one.convert("RGB")).astype(int) - ramps(3)[..., [1, 0, 2]]).mean() < 12
    assert content == render(path, media_type="image/gif")
