"""How values are folded and how keys are read: the forms of the standard, and those that senders really use."""

import pytest

from gateway.dicom.attributes import ATTRIBUTES, Level, attribute, belongs, day_key, matching, name_key, time_key
from gateway.dicom.qido import question
from gateway.errors import InvalidContent


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("LÉGER^Zoë^^", "leger^zoe"),
        ("CŒUR^Łucja", "coeur^lucja"),
        ("Buc^Jérôme", "buc^jerome"),
        ("  DUPONT   DURAND ^ Jean-Luc ", "dupont durand^jean-luc"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada^tarou=山田^太郎=やまた^たろう"),
        ("Люкceмбypг", "люкceмбypг"),
        ("Διονυσιος", "διονυσιοσ"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("^^==", ""),
    ],
)
def test_names_are_compared_without_accents_or_case(said, kept):
    assert name_key(said) == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [("20260305", "20260305"), ("2026.03.05", "20260305"), ("20260230", None), ("5 mars", None), ("", None)],
)
def test_a_day_is_a_day(said, kept):
    assert day_key(said) == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [("091230", "091230"), ("09:12:30", "091230"), ("09", "09"), ("091230.500000", "091230.5"), ("2512", None)],
)
def test_a_time_keeps_its_precision(said, kept):
    assert time_key(said) == kept


def test_a_key_has_two_names():
    assert attribute("00100010") is attribute("PatientName") is attribute("00100010".lower())
    assert attribute("0020000d") is attribute("StudyInstanceUID")
    assert attribute("00400275.00400009") is attribute("RequestAttributesSequence.ScheduledProcedureStepID")
    assert attribute("PatientComments") is None
    assert len({one.tag for one in ATTRIBUTES}) == len(ATTRIBUTES)


def test_an_empty_value_matches_everything():
    assert matching([(attribute("PatientName"), value) for value in ("",)]) == []
    assert matching([(attribute("PatientID"), "*"), (attribute("StudyDate"), "  ")]) == []


BAD = [
    ("StudyDate", "-"),
    ("StudyDate", "20260231"),
    ("StudyTime", "99"),
    ("SeriesNumber", "1.5"),
    ("StudyInstanceUID", "1.2.x"),
    ("StudyInstanceUID", "1.2," * 1001),
    ("PatientID", "x" * 2000),
    ("PatientID", "a\0b"),
]


@pytest.mark.parametrize(("keyword", "value"), BAD)
def test_a_value_that_is_none_is_refused_by_its_key(keyword, value):
    with pytest.raises(InvalidContent) as refusal:
        matching([(attribute(keyword), value)])
    assert (refusal.value.code, refusal.value.expression) == ("dicom-query", keyword)


def test_the_same_key_twice_is_refused():
    with pytest.raises(InvalidContent):
        matching([(attribute("PatientID"), "1"), (attribute("PatientID"), "2")])


def test_what_is_told_of_each_level():
    _, tags = question(Level.SERIES, [], study="1.2")
    assert {"00080060", "0020000E", "00400275"} <= tags
    assert "00100010" not in tags
    _, tags = question(Level.SERIES, [])
    assert "00100010" in tags
    _, tags = question(Level.INSTANCE, [("includefield", "PatientName,00181030"), ("InstanceNumber", "1")], study="1")
    assert {"00100010", "00181030", "00200013"} <= tags
    assert question(Level.STUDY, [("includefield", "all")])[1] is None


@pytest.mark.parametrize(
    ("tag", "level", "said"),
    [
        ("00100010", Level.PATIENT, True),
        ("00101010", Level.PATIENT, False),  # the patient's age is the study's
        ("00101010", Level.STUDY, True),
        ("00200013", Level.STUDY, False),
        ("00080060", Level.SERIES, True),
        ("00080060", Level.STUDY, False),
        ("00280010", Level.SERIES, False),
        ("00280010", Level.INSTANCE, True),
        ("00080005", Level.PATIENT, True),
    ],
)
def test_an_attribute_is_said_at_its_level(tag, level, said):
    assert belongs(tag, level) is said


@pytest.mark.parametrize(
    "asked",
    [
        [("limit", "x")],
        [("limit", "²")],
        [("offset", "99999999")],
        [("fuzzymatching", "peut-être")],
        [("includefield", "Inconnu")],
        [("Modality", "CT")],
        [("includefield", ",".join(f"0009{number:04X}" for number in range(300)))],
    ],
)
def test_a_bad_question_is_refused(asked):
    with pytest.raises(InvalidContent) as refusal:
        question(Level.STUDY, asked)
    assert refusal.value.code == "dicom-query"
