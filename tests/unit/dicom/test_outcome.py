"""Both tables are total, and nothing of a patient passes."""

import errno

import pytest

from gateway import errors
from gateway.dicom import outcome
from gateway.errors import GatewayError, InvalidContent


def categories(kind=GatewayError):
    yield kind.category
    for child in kind.__subclasses__():
        yield from categories(child)


def test_every_category_has_its_answer_and_no_other_is_named():
    assert set(outcome.DIMSE_STATUS) == set(categories())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Unavailable("x", "x"), 0xA700),
        (errors.InvalidContent("x", "x"), 0xC000),
        (InvalidContent("x", "x", rule=True), 0xA900),
        (errors.Conflict("x", "x"), 0x0111),
        (errors.UnknownIdentity("x", "x"), 0x0124),
        (OSError(errno.ENOSPC, "x"), 0xA700),
        (OSError(errno.EIO, "x"), 0x0110),
        (MemoryError(), 0xA700),
        (ValueError("x"), 0x0110),
    ],
)
def test_statuses_are_those_of_the_standard(error, status):
    assert outcome.answer(error).status == status


def test_a_comment_is_ascii_short_and_begins_with_the_code():
    said = outcome.answer(errors.Conflict("duplicate-instance", "Déjà reçu avec d’autres octets : cœur, œuvre… " * 3))
    assert said.comment.startswith("duplicate-instance: Deja recu avec d'autres octets : coeur")
    assert len(said.comment) <= 64
    assert said.comment.isascii()


def test_an_unforeseen_error_is_named_without_its_words():
    with pytest.raises(KeyError) as raised:
        {}["PAT-TROIS^DOMINIQUE"]
    assert "PAT-TROIS" not in outcome.where(raised.value) + outcome.answer(raised.value).comment
    assert outcome.where(raised.value).startswith("KeyError (test_outcome.py:")
