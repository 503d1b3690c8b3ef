"""Checks of our own on the values of a FRCP document: codes, labels, TNM, and words that must agree with them.

Each judge yields where and why; `gateway.documents.frcp_checks` numbers them. `[CI-SIS FRCP 2022.01]`
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.documents.cda_reading import VALUE, XSI_TYPE, Document, Element
from gateway.documents.frcp_state import WHO_GRADES
from gateway.rcp.fiche_fields import field_named
from gateway.terminology import code_list

__all__ = ["answers", "labels", "lists", "performance", "progression", "tnm", "treatments", "tumour"]

Faults = Iterator[tuple[str, str]]

_BOUND = {
    # Code of an observation → the list of its values; a null flavour is never judged.
    "GEN-098": "FRCP-NatureDiscussion",
    "ORG-118": "FRCP-Appareil",
    "ORG-119": "FRCP-Organe",
    "ORG-138": "FRCP-TraitementSoins",
    "ORG-127": "FRCP-StatutCasPresente",
    "MED-239": "FRCP-OMS",
    "MED-243": "FRCP-PhaseCancer",
    "ORG-125": "FRCP-StatutQuorum",
    "GEN-065": "FRCP-StatutDoc",
}
_PLACED = (
    # Code of an observation, where in it a code stands that is no value of the table above, and the list of that code.
    ("282291009", "c:value", "FRCP-Morphologie"),
    ("282291009", "c:targetSiteCode", "FRCP-Tumeur"),
    ("282291009", "c:targetSiteCode/c:qualifier[c:name/@code='20228-3']/c:value", "FRCP-Lateralite"),
    ("MED-239", "c:interpretationCode", "FRCP-OMS-Interpretation"),
)
_WHO = dict(WHO_GRADES)

# The grammar common to the editions of the TNM; which category a site has is for its edition to say. It is that of the
# fiche's fields, so that nothing is refused here which was taken there.
_LETTERS = {
    code: re.compile(field_named(key).pattern or "")
    for code, key in (("21905-5", "tumeur.t"), ("21906-3", "tumeur.n"), ("21907-1", "tumeur.m"))
}
_STAGE, _EDITION = (re.compile(field_named(key).pattern or "") for key in ("tumeur.stade", "tumeur.edition"))


def labels(document: Document) -> Faults:
    """A label beside a code of a list is the list's own, and so is the code's system."""
    for where, name, element in _listed(document):
        known = code_list(name).get(element.get("code") or "")
        if known is None:
            continue
        label = " ".join((element.get("displayName") or "").split())
        if label != known.label or element.get("codeSystem") != known.oid:
            yield where, "un code et son libellé ne vont pas ensemble"


def lists(document: Document) -> Faults:
    """A code stands in the list that the model binds; treatments and tumours have rules of their own."""
    for code, name in _BOUND.items():
        for value in document.values(code):
            if value.get("code") is not None and value.get("code") not in code_list(name):
                yield f"/observation[{code}]", "une valeur n’est pas de la liste nationale"


def _listed(document: Document) -> Iterator[tuple[str, str, Element]]:
    for code, name in _BOUND.items():
        for value in document.values(code):
            if value.get("code") is not None:
                yield f"/observation[{code}]", name, value
    for code, path, name in _PLACED:
        for observation in document.of(code):
            for element in document.all(path, observation):
                if element.get("code") is not None:
                    yield f"/observation[{code}]", name, element
    for element in document.all(".//c:procedure/c:code[@code]"):
        yield "/procedure/code", "FRCP-TypeTraitement", element


def treatments(document: Document) -> Faults:
    """A treatment, proposed or done, is of the national list."""
    allowed = code_list("FRCP-TypeTraitement")
    for code in document.texts(".//c:procedure/c:code/@code"):
        if code not in allowed:
            yield "/procedure/code", "un type de traitement n’est pas de la liste nationale"


def performance(document: Document) -> Faults:
    """The grade and its interpretation say the same."""
    for observation in document.of("MED-239"):
        value = document.texts("c:value/@code", observation)
        answer = document.texts("c:interpretationCode/@code", observation)
        if value and answer and _WHO.get(value[0]) != answer[0]:
            yield "/observation[MED-239]", "le grade OMS et son interprétation se contredisent"


def tumour(document: Document) -> Faults:
    """Morphology, site and side are codes of their lists."""
    places = (
        ("c:value", "FRCP-Morphologie", "le code de morphologie n’est pas de la liste nationale (CIM-O-3)"),
        ("c:targetSiteCode", "FRCP-Tumeur", "le code de topographie n’est pas de la liste nationale (CIM-10)"),
        (
            "c:targetSiteCode/c:qualifier[c:name/@code='20228-3']/c:value",
            "FRCP-Lateralite",
            "la latéralité n’est pas de la liste nationale",
        ),
    )
    for observation in document.of("282291009"):
        for path, name, text in places:
            for code in document.texts(f"{path}/@code", observation):
                if code not in code_list(name):
                    yield f"/observation[282291009]/{path.split('/')[0][2:]}", text


def tnm(document: Document) -> Faults:
    """T, N, M, stage and edition are written as the UICC writes them."""
    for code, grammar in _LETTERS.items():
        for value in document.values(code):
            if value.get("code") is not None and not grammar.fullmatch(value.get("code") or ""):
                yield f"/observation[{code}]", "une valeur du TNM n’est pas de la classification"
    for name, grammar, text in (
        ("21909-7", _STAGE, "le stade n’est pas de la classification"),
        ("21917-0", _EDITION, "l’édition du TNM est inconnue"),
    ):
        for observation in document.of("75620-5"):
            path = f"c:value/c:qualifier[c:name/@code='{name}']/c:value/@code"
            for code in document.texts(path, observation):
                if not grammar.fullmatch(code):
                    yield f"/qualifier[{name}]", text


def answers(document: Document) -> Faults:
    """Where the text answers by yes or no, the entry answers the same."""
    for code, observations in document.observations.items():
        for observation in observations:
            value = next(observation.iterchildren(VALUE), None)
            if value is None or value.get(XSI_TYPE) != "BL":
                continue
            said = (document.said(observation) or "").partition("\u00a0")[0].strip(" .,;:").lower()
            if said in _WORDS and value.get("value") is not None and _WORDS[said] != value.get("value"):
                yield f"/observation[{code}]", "le texte et la donnée codée se contredisent"


_WORDS = {"oui": "true", "non": "false"}


def progression(document: Document) -> Faults:
    """A cancer that progresses does so somewhere: local, regional or distant is said, if only as unknown."""
    for observation in document.of("MED-245"):
        if document.texts("c:value/@value", observation) == ["true"]:
            sites = document.texts("c:entryRelationship/c:observation/c:code/@code", observation)
            if not {"MED-246", "MED-247", "MED-248"} <= set(sites):
                yield "/observation[MED-245]", "une progression ne dit pas son siège"
