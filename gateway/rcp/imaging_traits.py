"""What objects say of their patient, compared with a record: what differs, never who it is.

Pure. What is not said contradicts nothing; a name agrees when it shares a word with a known one. [DECISIONS 7]
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from gateway.model.imaging import Study
from gateway.model.person import PatientRecord
from gateway.rcp.facts import Sex
from gateway.rcp.imaging_facts import ImagedPatientFacts

__all__ = ["Named", "differences", "differing", "same_patient", "traits"]


def traits(patient: ImagedPatientFacts) -> dict[str, Any]:
    """Give what objects say of their patient as `Study.traits` keeps it."""
    return {
        "family": patient.family,
        "given": patient.given,
        "birth_date": patient.birth_date.isoformat() if patient.birth_date else None,
        "sex": patient.sex.value,
        "others": [[other.system, other.value] for other in patient.others],
    }


class Named(Protocol):
    """What a study says of its patient."""

    @property
    def patient_id(self) -> str | None:
        """The identifier."""
        ...

    @property
    def traits(self) -> dict[str, Any]:
        """As `traits` gives them."""
        ...


def same_patient(study: Named, patient: ImagedPatientFacts) -> bool:
    """Whether an object names the patient of its study; what is not said contradicts nothing."""
    said = traits(patient)
    for name in ("birth_date", "sex"):
        if said[name] not in (None, Sex.UNKNOWN.value) and study.traits.get(name) not in (
            None,
            Sex.UNKNOWN.value,
            said[name],
        ):
            return False
    number = patient.patient_id.value if patient.patient_id else None
    if number and study.patient_id and number != study.patient_id:
        return False
    return _names_agree(said["family"], [study.traits.get("family")])


def differing(study: Study, record: PatientRecord) -> str | None:
    """Name the first trait that contradicts the record."""
    return next(differences(study, record), None)


def differences(study: Study, record: PatientRecord) -> Iterator[str]:
    """Name every trait that contradicts the record, the gravest first."""
    said = study.traits
    # The record's date may be partial; a stranger's date differs in what both say.
    if said.get("birth_date") and record.birth_date and not said["birth_date"].startswith(record.birth_date):
        yield "date-de-naissance-differente"
    if {said.get("sex"), record.sex} == {Sex.FEMALE.value, Sex.MALE.value}:
        yield "sexe-different"
    if not _names_agree(said.get("family"), [record.birth_family, record.used_family]):
        yield "nom-different"
    if not _names_agree(said.get("given"), [record.given, record.used_given, *record.given_names]):
        yield "prenom-different"


def _names_agree(said: str | None, known: Iterable[str | None]) -> bool:
    """Whether a name shares a word with a known one; silence on either side contradicts nothing.

    Modalities cut names at 64 characters, drop hyphens and add « EP. »: a word in common is asked for, after an
    identifier has already matched; never more is concluded from a name.
    """
    words = _words(said)
    others = [found for name in known if (found := _words(name))]
    if not words or not others:
        return True
    return any(set(words) & set(other) or "".join(words) == "".join(other) for other in others)


def _words(name: str | None) -> list[str]:
    opened = (name or "").replace("œ", "oe").replace("Œ", "OE").replace("æ", "ae").replace("Æ", "AE")
    plain = unicodedata.normalize("NFKD", opened).encode("ascii", "ignore").decode("ascii").upper()
    return "".join(char if char.isalnum() else " " for char in plain).split()
