"""Metadata in XML compared with dcmtk's Native DICOM Model of the same objects, element by element."""

from __future__ import annotations

import base64
import math
import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest
from lxml import etree
from pydicom.data import get_charset_files, get_testdata_file

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.dicom import native_model, translate

pytestmark = pytest.mark.skipif(
    shutil.which("dcm2xml") is None, reason="dcmtk is not installed (make test installs it as root)"
)

NUMBERS = {"DS", "IS", "FL", "FD", "SL", "SS", "UL", "US", "SV", "UV"}
# What our reading leaves out or says otherwise, on purpose: the JSON's own character set, and padding.
OTHERWISE = {"00080005", "FFFCFFFC"}
BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
FILES = [
    "CT_small.dcm",
    "MR_small.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
    "test-SR.dcm",
    "examples_palette.dcm",
    "examples_jpeg2k.dcm",
    "waveform_ecg.dcm",
    "rtdose.dcm",
    "MR_small_implicit.dcm",
    "SC_rgb_rle_2frame.dcm",
]
# dcm2json writes no compressed pixels.
COMPRESSED = {"examples_jpeg2k.dcm", "SC_rgb_rle_2frame.dcm"}
CHARACTER_SETS = ["Arab", "Fren", "FrenMulti", "Germ", "Greek", "Hbrw", "Russ", "X1", "X2"]


def local(element) -> str:
    return etree.QName(element).localname


def values(attribute) -> list:
    """What a DicomAttribute says, numbers as numbers."""
    said = []
    for one in attribute:
        kind = local(one)
        if kind == "Item":
            said.append(("item", one.get("number"), data_set(one)))
        elif kind == "PersonName":
            names = {
                (local(group), local(part)): part.text for group in one for part in group if part.text not in (None, "")
            }
            said.append(("name", one.get("number"), names))
        elif kind == "InlineBinary":
            said.append(("bytes", base64.b64decode(one.text or "")))
        elif kind == "BulkData":
            said.append(("elsewhere",))
        else:
            text = (one.text or "").strip(" ")
            number = attribute.get("vr") in NUMBERS and text
            said.append(("value", one.get("number"), float(text) if number else text))
    # An empty value at the end of a list, which dcmtk leaves out.
    while said and said[-1][0] in ("value", "name") and said[-1][2] in ("", {}):
        said.pop()
    return said


def data_set(above) -> dict:
    found = {}
    for attribute in above:
        name = (attribute.get("tag"), attribute.get("privateCreator"))
        assert name not in found
        found[name] = (attribute.get("vr"), attribute.get("keyword"), values(attribute))
    return found


def by_dcmtk(path: Path) -> dict:
    command = ["dcm2xml", "--native-format", "+Xn", "--encode-base64", "--load-all", "--convert-to-utf8", str(path)]
    made = subprocess.run(command, capture_output=True, check=True).stdout
    root = etree.fromstring(made)
    assert root.tag == f"{{{native_model.NAMESPACE}}}NativeDicomModel"
    return data_set(root)


def alike(ours: dict, theirs: dict) -> int:
    """Compare two data sets; how many values were alike."""
    count = 0
    for name in ours.keys() & theirs.keys():
        (vr, keyword, said), (other_vr, other_keyword, other) = ours[name], theirs[name]
        assert other_keyword in (None, keyword), name  # of retired attributes dcmtk knows none
        if said == [("elsewhere",)]:
            assert vr in BINARY or len(str(other)) > 64 * 1024, name
            continue
        assert (name, vr, len(said)) == (name, other_vr, len(other))
        for one, another in zip(said, other, strict=True):
            assert one[:-1] == another[:-1], name
            count += _alike(name, one[-1], another[-1])
    return count


def _alike(name, mine, other) -> int:
    if isinstance(mine, dict) and all(isinstance(value, tuple) for value in mine.values()):
        assert mine.keys() == other.keys() - {("00080005", None)}, name
        return alike(mine, other)
    if isinstance(mine, dict):
        # Of a name whose last group is empty, dcmtk repeats the one before.
        other = {part: text for part, text in other.items() if part in mine or part[0] != "Phonetic"}
    if isinstance(mine, bytes) and mine != other:
        # dcmtk encodes words with their high byte first; InlineBinary is little endian [PS3.18 F.2.7].
        other = np.frombuffer(other, ">u2").astype("<u2").tobytes()
    if isinstance(mine, float) and math.isclose(mine, other, rel_tol=1e-6):
        return 1
    assert (name, mine) == (name, other)
    return 1


def compared(path: Path) -> int:
    facts = translate.read(path)
    root = etree.fromstring(native_model.written(facts.dicom_json))
    assert root.tag == f"{{{native_model.NAMESPACE}}}NativeDicomModel"
    ours, theirs = data_set(root), by_dcmtk(path)
    # Private attributes without a creator, of which dcmtk leaves the block out too, with a warning.
    ours, theirs = ({name: one[name] for name in one if not name[0].startswith("7001")} for one in (ours, theirs))
    read = {name for name in theirs if name[0] not in OTHERWISE and not name[0].startswith("0002")}
    assert {name for name in ours if name[0] not in OTHERWISE} - {("7FE00010", None)} == read - {("7FE00010", None)}
    return alike({name: ours[name] for name in ours if name[0] not in OTHERWISE}, {name: theirs[name] for name in read})


@pytest.mark.parametrize("name", FILES)
def test_an_object_of_others_says_what_dcmtk_says(name):
    assert compared(Path(get_testdata_file(name))) > 10


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_names_in_every_character_set_that_dcmtk_knows(name):
    [path] = get_charset_files(f"chr{name}.dcm")
    assert compared(Path(path)) > 5


def test_a_picture_of_ours(tmp_path):
    assert compared(write_series(DOMINIQUE, tmp_path / "ct")[1]) > 50


@pytest.mark.parametrize("name", sorted({*FILES} - COMPRESSED))
def test_what_dcmtk_writes_is_read_as_the_object_says(name, tmp_path):
    """The other way: dcmtk's document, read by us, against its own JSON of the same object."""
    path = get_testdata_file(name)
    command = ["dcm2xml", "--native-format", "+Xn", "--encode-base64", "--convert-to-utf8", path]
    ours = native_model.read(subprocess.run(command, capture_output=True, check=True).stdout)
    theirs = msgspec.json.decode(subprocess.run(["dcm2json", path], capture_output=True, check=True).stdout)
    private = {tag for tag in theirs if int(tag[:4], 16) & 1}  # their blocks are given out anew
    assert {tag for tag in ours if not int(tag[:4], 16) & 1} == theirs.keys() - private - {"00080005"} | (
        {"00080005"} & ours.keys()
    )
    for tag in theirs.keys() - private - {"00080005"}:
        mine, other = ours[tag], theirs[tag]
        assert mine["vr"] == other["vr"], tag
        if mine["vr"] in ("LO", "SH", "UI", "CS", "DA"):
            assert mine.get("Value", []) == other.get("Value", []), tag
        if mine["vr"] == "SQ":
            assert len(mine.get("Value", ())) == len(other.get("Value", ())), tag
