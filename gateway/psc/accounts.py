"""Who the provider's answer names: the professional, his work situations, his row in the directory.

Promises: the key is the national identifier, never ``sub`` nor a user name; with several work situations none is taken
in silence; a person without a professional exercise is not a health professional and is refused; a professional whom
the directory does not know yet gets his row from this sign-in, matched by RPPS alone (S2-005). An RPPS with a wrong key
proves nobody (DECISIONS 9): it counts as none.

Absent values come as empty strings, and whole keys may be missing [spec psc §5.2].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import select

from gateway.errors import Forbidden
from gateway.identifiers import Rpps
from gateway.model.directory import Practitioner
from gateway.model.store import utcnow
from gateway.rcp.step import Step
from gateway.terminology import code_list

__all__ = ["Professional", "Situation", "practitioner_of", "read_professional"]

_MAX_SITUATIONS: Final = 50
_MAX_CHARACTERS: Final = 200
_SOURCE: Final = "psc"


@dataclass(frozen=True, slots=True)
class Situation:
    """One way of working: an exercise and, when the register has one, an activity in a structure.

    Parameters
    ----------
    key
        Stable name of this situation among its owner's, for the form of choice.
    profession, speciality
        Codes of TRE_G15 and TRE_R38 as the provider gave them.
    structure
        ``ancienIdentifiantDeLaStructure``, the national identifier of the structure with its prefix; may be empty.
    """

    key: str
    profession: str
    speciality: str
    structure: str
    structure_name: str
    role: str

    def label(self) -> str:
        """Say the situation in words, such as « Médecin – Oncologie – CHU ».

        Codes that our lists do not hold are shown as they came.
        """
        named = (
            _label("TRE_G15", self.profession),
            _label("TRE_R38", self.speciality),
            self.structure_name or self.structure or "sans structure déclarée",
        )
        return " – ".join(part for part in named if part)

    def facts(self) -> dict[str, str]:
        """Return the situation as JSON for the session's row."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Professional:
    """A health professional as Pro Santé Connect names him.

    Parameters
    ----------
    national_id
        ``SubjectNameID`` [spec psc §5.3].
    rpps
        11 digits whose key is right, or ``None``.
    """

    national_id: str
    rpps: str | None
    family: str
    given: str
    title: str
    situations: tuple[Situation, ...]

    @property
    def idnps(self) -> str:
        """The key in the directory: ``8`` and the RPPS when there is one, else what the provider gave."""
        return f"8{self.rpps}" if self.rpps else self.national_id


def read_professional(userinfo: Mapping[str, Any]) -> Professional:
    """Read a userinfo answer.

    Raises
    ------
    Forbidden
        ``psc-not-a-professional``: no national identifier, or no professional exercise.
    """
    national_id = _text(userinfo.get("SubjectNameID"))
    reference = userinfo.get("SubjectRefPro")
    reference = reference if isinstance(reference, Mapping) else {}
    exercises = [one for one in _items(reference.get("exercices")) if _text(one.get("codeProfession"))]
    if not national_id or not exercises:
        raise Forbidden(
            "psc-not-a-professional",
            "Votre identité Pro Santé Connect ne comporte aucun exercice de professionnel de santé : "
            "l’accès n’est pas possible.",
        )
    first = exercises[0]
    return Professional(
        national_id=national_id,
        rpps=_rpps(national_id, userinfo),
        family=_text(userinfo.get("family_name")) or _text(first.get("nomDexercice")),
        given=_text(userinfo.get("given_name")) or _text(first.get("prenomDexercice")),
        title=_text(first.get("codeCiviliteDexercice")),
        situations=_situations(exercises),
    )


def practitioner_of(step: Step, professional: Professional) -> Practitioner:
    """Find the professional in the directory, or write him there from this sign-in.

    A row that the directory import owns is left as it is: the provider's spelling of a name does not overwrite the
    register's.
    """
    found = None
    if professional.rpps:
        found = step.session.scalar(select(Practitioner).where(Practitioner.rpps == professional.rpps))
    if found is None:
        found = step.session.scalar(select(Practitioner).where(Practitioner.idnps == professional.idnps))
    if found is not None:
        return found
    first = professional.situations[0]
    found = Practitioner(
        rpps=professional.rpps,
        idnps=professional.idnps,
        family=professional.family,
        given=professional.given,
        title=professional.title or None,
        profession=first.profession,
        speciality=first.speciality or None,
        source=_SOURCE,
        as_of=utcnow().date(),
    )
    step.session.add(found)
    step.session.flush()
    return found


def _situations(exercises: list[Mapping[str, Any]]) -> tuple[Situation, ...]:
    found: dict[str, Situation] = {}
    for exercise in exercises:
        # An exercise without activities is a situation all the same: a physician between two posts.
        for activity in _items(exercise.get("activities")) or [{}]:
            situation = _situation(exercise, activity)
            found.setdefault(situation.key, situation)
    return tuple(found.values())[:_MAX_SITUATIONS]


def _situation(exercise: Mapping[str, Any], activity: Mapping[str, Any]) -> Situation:
    facts = (
        _text(exercise.get("codeProfession")),
        _text(exercise.get("codeSavoirFaire")),
        _text(activity.get("ancienIdentifiantDeLaStructure"))
        or _text(activity.get("identifiantTechniqueDeLaStructure")),
        _text(activity.get("raisonSocialeSite")) or _text(activity.get("enseigneCommercialeSite")),
        _text(activity.get("codeRole")),
    )
    # Twice the same facts is one situation; the key survives a change of order between two sign-ins.
    return Situation(hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16], *facts)


def _rpps(national_id: str, userinfo: Mapping[str, Any]) -> str | None:
    told = [national_id] if len(national_id) == 12 and national_id.startswith("8") else []
    told += [_text(one.get("identifiant")) for one in _items(userinfo.get("otherIds")) if one.get("origine") == "RPPS"]
    read = (Rpps.from_wire(value) for value in told)
    return next((rpps.value for rpps in read if not rpps.faults), None)


def _label(name: str, code: str) -> str:
    if not code:
        return ""
    concept = code_list(name).get(code)
    return concept.label if concept else code


def _text(value: Any) -> str:
    return value.strip()[:_MAX_CHARACTERS] if isinstance(value, str) else ""


def _items(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
