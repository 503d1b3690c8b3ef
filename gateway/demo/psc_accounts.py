"""Fictitious accounts of the Pro Santé Connect stand-in, in the very shape of a userinfo answer [spec psc §5.2]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Account", "Post"]

_NAMESPACE: Final = "c1f0a6a4-0000-4000-8000-000000000997"


@dataclass(frozen=True, slots=True)
class Post:
    """One work situation of a fictitious professional.

    Parameters
    ----------
    profession, speciality
        Codes of TRE_G15 (``10`` physician) and TRE_R38.
    structure
        National identifier of the structure with its prefix, such as ``1990000010``; empty for no activity.
    """

    profession: str = "10"
    speciality: str = ""
    structure: str = ""
    structure_name: str = ""
    role: str = ""
    sector: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """A fictitious person who may sign in; `posts` empty is somebody who is no health professional."""

    national_id: str
    given: str
    family: str
    title: str = ""
    posts: tuple[Post, ...] = ()
    acr: str = "eidas1"
    note: str = ""

    @property
    def subject(self) -> str:
        """The provider's ``sub``, technical as PSC's."""
        return f"f:{_NAMESPACE}:{self.national_id}"

    def userinfo(self) -> dict[str, Any]:
        """Write the userinfo answer; what is absent is an empty string, as PSC does [spec psc §5.2]."""
        first = next((post for post in self.posts if post.structure), Post())
        return {
            "sub": self.subject,
            "SubjectNameID": self.national_id,
            "preferred_username": self.national_id,
            "given_name": self.given,
            "family_name": self.family,
            "email_verified": False,
            "UITVersion": "1.0",
            "PSI_Locale": "1.2.250.1.213.1.3.1.1",
            "Palier_Authentification": "APPPRIP3^1.2.250.1.213.1.5.1.1.1",
            "Acces_Regulation_Medicale": "FAUX",
            "Mode_Acces_Raison": "",
            "Secteur_Activite": f"{first.sector}^1.2.250.1.71.4.2.4" if first.sector else "",
            "SubjectOrganization": first.structure_name,
            "SubjectOrganizationID": first.structure,
            "SubjectRole": sorted({f"{post.profession}^1.2.250.1.213.1.1.5.5" for post in self.posts}),
            "SubjectRefPro": {"codeCivilite": "", "exercices": [self._exercise(post) for post in self.posts]},
            "otherIds": [{"identifiant": self.national_id, "origine": "RPPS", "qualite": 1}]
            if self.national_id.startswith("8")
            else [],
        }

    def _exercise(self, post: Post) -> dict[str, Any]:
        exercise: dict[str, Any] = {
            "codeProfession": post.profession,
            "codeCategorieProfessionnelle": "C",
            "codeCiviliteDexercice": self.title,
            "nomDexercice": self.family,
            "prenomDexercice": self.given,
            "codeTypeSavoirFaire": "S" if post.speciality else "",
            "codeSavoirFaire": post.speciality,
        }
        if post.structure:
            activity = {
                "codeModeExercice": "S",
                "codeSecteurDactivite": post.sector,
                "codeRole": post.role,
                "raisonSocialeSite": post.structure_name,
                "enseigneCommercialeSite": "",
                "identifiantTechniqueDeLaStructure": "",
                "ancienIdentifiantDeLaStructure": post.structure,
            }
            exercise["activities"] = [activity]
        return exercise
