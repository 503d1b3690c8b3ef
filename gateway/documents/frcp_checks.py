"""Checks of our own on a FRCP document: what no national schema or schematron looks at.

Promises: a closed list of numbered rules (`RULES`), each judged on the document alone, so that they apply to other
people's documents too; a finding says which rule, where, and why in French without a patient's data. The national
rules themselves are not repeated here. `[CI-SIS FRCP 2022.01]`
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

from lxml import etree
from msgspec import Struct

from gateway.terminology import code_list

__all__ = ["RULES", "Finding", "check"]

_NS = {"c": "urn:hl7-org:v3"}
_FRCP = "1.2.250.1.213.1.1.1.8"
_TA = "1.2.250.1.213.1.1.4.322"
_TIME = re.compile(r"\d{10,14}(\.\d+)?[+-]\d{4}")
_LETTERED = re.compile(r"\d{8}[0-9]")
_CIM10 = re.compile(r"[CD]\d\d(\.\d{1,2})?\+?\d{0,2}")
_CIMO3 = re.compile(r"\d{4}/\d")
_IDNPS = re.compile(r"8\d{11}")
_IDNST = re.compile(r"1\d[0-9AB]\d{7}|2\d{9}|3\d{14}")
_INS = re.compile(r"\d{5}[0-9AB]{2}\d{8}")
_WHO = {
    "MED-240": "LA9622-7",
    "MED-264": "LA9623-5",
    "MED-265": "LA9624-3",
    "MED-266": "LA9625-0",
    "MED-267": "LA9626-8",
}
_LISTS = {"ORG-127": "FRCP-StatutCasPresente", "ORG-125": "FRCP-StatutQuorum"}

Element = etree._Element  # noqa: SLF001 - lxml exports its element type under no public name


class Finding(Struct, frozen=True):
    """One broken rule: its number, where in the document, and why."""

    rule: str
    location: str
    text: str


def check(root: Element) -> tuple[Finding, ...]:
    """Judge a ``ClinicalDocument`` by every rule, in order."""
    found = []
    for number, judge in RULES.items():
        found += [Finding(number, where, text) for where, text in judge(root)]
    return tuple(found)


_Judge = Callable[[Element], Iterator[tuple[str, str]]]


def _all(root: Element, path: str) -> list[Element]:
    return cast("list[Element]", root.xpath(path, namespaces=_NS))


def _values(root: Element, path: str) -> list[str]:
    return cast("list[str]", root.xpath(path, namespaces=_NS))


def _header(root: Element) -> Iterator[tuple[str, str]]:
    if _values(root, "c:typeId/@extension") != ["POCD_HD000040"]:
        yield "/typeId", "le type du document n’est pas celui d’un CDA"
    if not _all(root, f"c:templateId[@root='{_FRCP}' and @extension='2022.01']"):
        yield "/templateId", "le document ne se déclare pas conforme au modèle FRCP 2022.01"


def _case_status(root: Element) -> Iterator[tuple[str, str]]:
    if len(_all(root, ".//c:observation[c:code/@code='ORG-127']/c:value[@code or @nullFlavor]")) != 1:
        yield "/component", "le statut du cas (enregistré ou discuté) doit être dit une fois"
    recorded = _all(root, ".//c:observation[c:code/@code='ORG-127']/c:value[@code='ORG-128']")
    if recorded and not _all(root, ".//c:observation[c:code/@code='MED-249']"):
        yield "/component", "un cas seulement enregistré doit nommer le référentiel suivi"


def _nature(root: Element) -> Iterator[tuple[str, str]]:
    for value in _values(root, ".//c:observation[c:code/@code='GEN-098']/c:value/@code"):
        organ = _all(root, ".//c:observation[c:code/@code='ORG-118']//c:observation[c:code/@code='ORG-119']")
        care = _all(root, ".//c:observation[c:code/@code='ORG-138']")
        if value == "ORG-117" and (not organ or care):
            yield "/component", "une RCP d’appareil nomme son appareil et ses organes, et rien d’autre"
        if value == "ORG-132" and (not care or organ):
            yield "/component", "une RCP transversale nomme ses soins, et rien d’autre"


def _references(root: Element) -> Iterator[tuple[str, str]]:
    anchors = Counter(_values(root, ".//c:text//@ID"))
    for name, times in anchors.items():
        if times > 1:
            yield f"#{name}", "un même repère est posé deux fois dans le texte"
    for target in set(_values(root, ".//c:reference/@value")):
        if target.startswith("#") and target[1:] not in anchors:
            yield target, "une donnée codée renvoie à un texte qui n’existe pas"


def _ids(root: Element) -> Iterator[tuple[str, str]]:
    seen = Counter(_values(root, ".//c:structuredBody//c:id/@root[not(../@extension)]"))
    for value, times in seen.items():
        if times > 1:
            yield value, "un même identifiant désigne deux éléments du corps"


def _narratives(root: Element) -> Iterator[tuple[str, str]]:
    for section in _all(root, ".//c:section[not(c:component)]"):
        text = section.find("c:text", _NS)
        if text is None or not "".join(str(said) for said in text.itertext()).strip():
            code = section.find("c:code", _NS)
            yield f"/section[{'' if code is None else code.get('code')}]", "une section n’a pas de texte"


def _zones(root: Element) -> Iterator[tuple[str, str]]:
    values = ".//c:time | .//c:effectiveTime | .//c:low | .//c:high"
    for element in _all(root, values):
        value = element.get("value")
        if value is not None and _LETTERED.match(value) and not _TIME.fullmatch(value):
            yield etree.QName(element).localname, "une heure est écrite sans son fuseau"


def _meeting(root: Element) -> Iterator[tuple[str, str]]:
    numbers = _all(root, "c:componentOf/c:encompassingEncounter/c:id")
    distinct = {(n.get("root"), n.get("extension")) for n in numbers if n.get("root")}
    if len(distinct) < 3:
        yield "/componentOf", "le réseau, le 3C et la RCP doivent avoir chacun un identifiant"
    if not _all(root, "c:componentOf//c:healthCareFacility/c:code[@code]"):
        yield "/componentOf", "le type de l’établissement qui accueille la réunion est inconnu"


def _people(root: Element) -> Iterator[tuple[str, str]]:
    roles = (
        ("coordonnateur", "c:participant[@typeCode='RESP']"),
        ("demandeur", "c:participant[@typeCode='REFB']"),
        ("médecin traitant (éventuellement inconnu)", "c:participant[@typeCode='INF'][c:functionCode/@code='PCP']"),
    )
    for role, path in roles:
        if len(_all(root, path)) != 1:
            yield "/participant", f"il faut un {role} et un seul"
    counted = "c:participant[@typeCode='PRF'][c:functionCode/@code='353']"
    people = Counter(_values(root, f"{counted}/c:associatedEntity/c:id/@extension"))
    if any(times > 1 for times in people.values()):
        yield "/participant", "une même personne est comptée deux fois dans le quorum"
    reached = _all(root, ".//c:observation[c:code/@code='ORG-125']/c:value[@code='ORG-126']")
    if reached and not _all(root, counted):
        yield "/participant", "le quorum est dit atteint sans que ses membres soient nommés"
    responsible = (
        ("auteur", "c:author/c:assignedAuthor"),
        ("responsable", "c:legalAuthenticator/c:assignedEntity"),
    )
    for role, path in responsible:
        if not _all(root, f"{path}/c:id[@extension]"):
            yield f"/{path.partition(':')[2]}", f"le {role} du document n’a pas de numéro RPPS"


def _numbers(root: Element) -> Iterator[tuple[str, str]]:
    shapes = (
        ("1.2.250.1.71.4.2.1", _IDNPS, "un numéro national de professionnel est mal formé"),
        ("1.2.250.1.71.4.2.2", _IDNST, "un numéro national de structure est absent ou mal formé"),
        *((f"1.2.250.1.213.1.4.{n}", _INS, "le matricule INS est mal formé") for n in (8, 9, 10, 11)),
    )
    for oid, shape, text in shapes:
        for element in _all(root, f".//c:id[@root='{oid}']"):
            if not shape.fullmatch(element.get("extension") or ""):
                yield f"id[{oid}]", text
    if not _all(root, "c:recordTarget/c:patientRole/c:id"):
        yield "/recordTarget", "le patient n’a ni INS qualifiée ni numéro local"


def _labels(root: Element) -> Iterator[tuple[str, str]]:
    for code, name in _LISTS.items():
        for value in _all(root, f".//c:observation[c:code/@code='{code}']/c:value[@code]"):
            known = code_list(name).get(value.get("code") or "")
            if known is None or value.get("displayName") != known.label or value.get("codeSystem") != _TA:
                yield f"/observation[{code}]", "un code et son libellé ne vont pas ensemble"


def _treatments(root: Element) -> Iterator[tuple[str, str]]:
    allowed = code_list("FRCP-TypeTraitement")
    for code in _values(root, ".//c:procedure[@moodCode='INT']/c:code/@code"):
        if code not in allowed and code != "387713003":
            yield "/procedure/code", "un type de traitement n’est pas de la liste nationale"


def _who(root: Element) -> Iterator[tuple[str, str]]:
    for observation in _all(root, ".//c:observation[c:code/@code='MED-239']"):
        value = _values(observation, "c:value/@code")
        answer = _values(observation, "c:interpretationCode/@code")
        if value and answer and _WHO.get(value[0]) != answer[0]:
            yield "/observation[MED-239]", "le grade OMS et son interprétation se contredisent"


def _tumour(root: Element) -> Iterator[tuple[str, str]]:
    for observation in _all(root, ".//c:observation[c:code/@code='282291009']"):
        for value in _values(observation, "c:value/@code"):
            if not _CIMO3.fullmatch(value):
                yield "/observation[282291009]/value", "le code de morphologie n’est pas de la CIM-O-3"
        for value in _values(observation, "c:targetSiteCode/@code"):
            if not _CIM10.fullmatch(value):
                yield "/observation[282291009]/targetSiteCode", "le code de topographie n’est pas de la CIM-10"


def _version(root: Element) -> Iterator[tuple[str, str]]:
    number = _values(root, "c:versionNumber/@value")
    replaced = _values(root, "c:relatedDocument[@typeCode='RPLC']/c:parentDocument/c:id/@root")
    if number and (number[0] == "1") == bool(replaced):
        yield "/relatedDocument", "une première version ne remplace rien, une suivante remplace la précédente"
    identity = [(i.get("root"), i.get("extension")) for i in _all(root, "c:id | c:setId")]
    if len(set(identity)) != len(identity):
        yield "/id", "la version et l’ensemble des versions portent le même identifiant"


RULES: dict[str, _Judge] = {
    "FRCP-01": _header,
    "FRCP-02": _case_status,
    "FRCP-03": _nature,
    "FRCP-04": _references,
    "FRCP-05": _ids,
    "FRCP-06": _narratives,
    "FRCP-07": _zones,
    "FRCP-08": _meeting,
    "FRCP-09": _people,
    "FRCP-10": _numbers,
    "FRCP-11": _labels,
    "FRCP-12": _treatments,
    "FRCP-13": _who,
    "FRCP-14": _tumour,
    "FRCP-15": _version,
}
