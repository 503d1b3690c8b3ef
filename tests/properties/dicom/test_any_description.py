"""Whatever a description says, it is refused by name or becomes what pydicom reads as it was said."""

import base64
import io

import msgspec
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dicom import native_model
from gateway.dicom.command import StoreRequest, part10_head
from gateway.dicom.encoded import encoded
from gateway.errors import InvalidContent

pytestmark = pytest.mark.filterwarnings("ignore")

SYNTAX = "1.2.840.10008.1.2.1"
HEAD = part10_head(StoreRequest(1, 1, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", SYNTAX))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = "AE AS AT CS DA DS DT FD FL IS LO LT OB OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT XX"
types = st.sampled_from(KNOWN.split())
elements = st.fixed_dictionaries(
    {"vr": types | anything},
    optional={"Value": st.lists(anything, max_size=3) | anything, "InlineBinary": anything, "BulkDataURI": anything},
)
trees = st.dictionaries(st.from_regex(r"[0-9A-Fa-f]{8}", fullmatch=True) | st.text(max_size=9), elements, max_size=4)


def judged(work):
    """What comes of it, or the code of its refusal."""
    try:
        return work(), None
    except InvalidContent as refusal:
        return None, refusal.code


@settings(max_examples=60, deadline=None)
@given(trees)
def test_any_tree_is_written_or_refused(tree):
    content, code = judged(lambda: b"".join(encoded(tree, lambda _: (), SYNTAX)))
    if content is None:
        assert code in ("dicom-data-set", "dicom-bulk")
        return
    ds = pydicom.dcmread(io.BytesIO(HEAD + content))
    written = {tag.upper() for tag in tree if not tag.endswith("0000") and not tag.startswith("0002")}
    assert {f"{tag:08X}" for tag in map(int, ds.keys())} == written | {"00080005"}


names = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\\=^"), max_size=10).map(str.strip)


@settings(max_examples=60, deadline=None)
@given(names, names, names, st.lists(st.integers(0, 65535), max_size=4), st.binary(max_size=20).map(lambda b: b * 2))
def test_what_is_said_is_what_is_read(family, given_name, text, numbers, octets):
    tree = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"{family}^{given_name}"}]},
        "00204000": {"vr": "LT", "Value": [text]},
        "00091001": {"vr": "US", "Value": numbers},
        "00091002": {"vr": "UN", "InlineBinary": base64.b64encode(octets).decode()},
        "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}, {}]},
    }
    ds = pydicom.dcmread(io.BytesIO(HEAD + b"".join(encoded(tree, lambda _: (), SYNTAX))))
    assert str(ds.PatientName).rstrip("^ ") == f"{family}^{given_name}".rstrip("^ ")
    assert ds.ImageComments == text
    assert (ds[0x00091002].value or b"") == octets
    assert [str(item.get("ReferencedSOPInstanceUID", "")) for item in ds.ReferencedImageSequence] == ["1.2.3", ""]


documents = st.binary(max_size=60) | st.text(max_size=60).map(str.encode)


@settings(max_examples=60, deadline=None)
@given(documents, st.text(max_size=8), st.text(max_size=3))
def test_any_document_is_read_or_refused(content, tag, vr):
    begin = b'<DicomAttribute tag="%s" vr="%s">' % (tag.encode(), vr.encode())
    element = native_model.written(b"{}").replace(b"</Nat", begin + content + b"</DicomAttribute></Nat")
    for document in (content, element):
        tree, code = judged(lambda document=document: native_model.read(document))
        assert tree is not None or code in ("dicom-xml", "xml-malforme", "xml-entites")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_written_as_xml(text):
    stored = msgspec.json.encode({"00204000": {"vr": "LT", "Value": [text]}})
    [said] = native_model.read(native_model.written(stored))["00204000"]["Value"]
    assert len(said) == len(text)
    assert all(other in (one, "\ufffd") for one, other in zip(text, said, strict=True))
