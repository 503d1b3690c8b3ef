"""Ten seeded mutations of a valid archive, each caught by our own checks with its own reason."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from gateway.errors import InvalidContent
from gateway.mssante import xdm_reader
from tests import xdm_samples as samples

Files = dict[str, bytes]
SEED = 20261126


def _other_digit(chance: random.Random, text: str) -> str:
    """Change one digit of a text to another."""
    where = chance.choice([at for at, char in enumerate(text) if char in "123456789"])
    return text[:where] + chance.choice([one for one in "123456789" if one != text[where]]) + text[where + 1 :]


def _said(files: Files, pattern: str) -> str:
    found = re.search(pattern, files[samples.METADATA].decode())
    assert found
    return found[0]


def _digit_of(pattern: str, times: int = 1) -> Callable[[Files, random.Random], Files]:
    def change(files: Files, chance: random.Random) -> Files:
        old = _said(files, pattern)
        made = samples.with_metadata(files, old, "\0", times)
        return samples.with_metadata(made, "\0", _other_digit(chance, old), times)

    return change


def _one_patient(files: Files, chance: random.Random) -> Files:
    """Change the patient of the document but not of the set."""
    old = _said(files, r"[0-9]{15}\^{3}")
    said = files[samples.METADATA].replace(old.encode(), _other_digit(chance, old).encode(), 1)
    return files | {samples.METADATA: said}


def _document_byte(files: Files, chance: random.Random) -> Files:
    """Change one digit of the document, and say nothing of it."""
    text = files[samples.DOCUMENT].decode()
    return files | {samples.DOCUMENT: _other_digit(chance, text).encode()}


def _document_id(files: Files, chance: random.Random) -> Files:
    """Change the document's own identifier, and say its new hash and size."""

    def change(document: bytes) -> bytes:
        old = re.search(rb'<id root="([0-9.]+)"', document)
        assert old
        return document.replace(old[0], b'<id root="' + old[1] + str(chance.randint(1, 9)).encode() + b'"', 1)

    return samples.with_document(files, change)


MUTATIONS: dict[str, tuple[Callable[[Files, random.Random], Files], str]] = {
    "a digit of the hash": (_digit_of(r"(?<=>)[0-9a-f]{40}(?=<)"), "xdm-empreinte"),
    "a digit of the size": (_digit_of(r"(?<=<rim:Value>)[0-9]{4,6}(?=</rim:Value>)"), "xdm-taille"),
    "a byte of the document": (_document_byte, "xdm-empreinte"),
    "the document's identifier": (_document_id, "xdm-identifiant"),
    "the patient of the document alone": (_one_patient, "xdm-patients"),
    "the local number of the patient": (_digit_of(r"000123456\^{3}"), "xdm-patients"),
    "another URI": (_digit_of(r"DOC0001\.XML"), "xdm-fichier-absent"),
    "the document taken out": (
        lambda files, _: {name: data for name, data in files.items() if name != samples.DOCUMENT},
        "xdm-fichier-absent",
    ),
    "a second METADATA.XML": (
        lambda files, chance: (
            files | {chance.choice(["", "IHE_XDM/", "AUTRE/SUBSET01/"]) + "METADATA.XML": files[samples.METADATA]}
        ),
        "xdm-deux-metadata",
    ),
    "an object that is no document": (_digit_of(r"urn:uuid:7edca82f-[0-9a-f-]+"), "xdm-metadata"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_caught_with_its_reason(name):
    mutate, expected = MUTATIONS[name]
    for seed in range(SEED, SEED + 5):
        files = samples.valid()
        mutated = mutate(files, random.Random(seed))  # noqa: S311 - a seed, not a secret
        assert mutated != files
        with pytest.raises(InvalidContent) as refused:
            xdm_reader.read(samples.zipped(mutated))
        assert refused.value.code == expected


def test_what_is_mutated_is_valid_before():
    assert len(xdm_reader.read(samples.zipped(samples.valid())).entries) == 1
    assert len(MUTATIONS) == 10
