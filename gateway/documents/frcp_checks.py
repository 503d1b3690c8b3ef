"""Checks of our own on a FRCP document: what no national schema or schematron looks at.

Promises: a closed list of numbered rules (`RULES`), each judged on the document alone, so that they apply to other
people's documents too; a finding says which rule, where, and why in French without a patient's data. The national
rules themselves are not repeated here. `[CI-SIS FRCP 2022.01]`
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from lxml import etree

from gateway.documents import frcp_value_checks as values
from gateway.documents.cda_reading import Document, Element, Finding
from gateway.errors import InvalidContent
from gateway.identifiers.keys import nir_key

__all__ = ["HEADER_RULES", "RULES", "Finding", "check", "require"]

_FRCP = "1.2.250.1.213.1.1.1.8"
_TIME = re.compile(r"\d{10,14}(\.\d+)?[+-]\d{4}")
_LETTERED = re.compile(r"\d{8}[0-9]")
_IDNPS = re.compile(r"8\d{11}")
_IDNST = re.compile(r"1\d[0-9AB]\d{7}|2\d{9}|3\d{14}")
_INS = re.compile(r"\d{5}(?:\d\d|2[AB])\d{8}")


def check(root: Element, rules: Collection[str] | None = None) -> tuple[Finding, ...]:
    """Judge a ``ClinicalDocument`` by every rule, or by those named, in order."""
    document = Document(root)
    found = []
    for number, judge in RULES.items():
        if rules is not None and number not in rules:
            continue
        found += [Finding(number, where, text) for where, text in judge(document)]
    return tuple(found)


def require(made: bytes, rules: Collection[str] | None = None) -> bytes:
    """Give a document back when it breaks none of these rules.

    Raises
    ------
    InvalidContent
        ``report-frcp`` with the numbers of the rules broken, or when a character has no place in XML.
    """
    try:
        root = etree.fromstring(made, _PARSER)
    except etree.XMLSyntaxError as error:
        text = "Le compte rendu ne peut pas être établi : il contient un caractère que son format n’admet pas."
        raise InvalidContent("report-frcp", text, rule=True) from error
    faults = check(root, rules)
    if faults:
        raise InvalidContent(
            "report-frcp",
            "Le compte rendu ne peut pas être établi : " + " ; ".join(f"{f.rule} {f.text}" for f in faults) + ".",
            expression=faults[0].location,
            rule=True,
        )
    return made


_PARSER = etree.XMLParser(huge_tree=True, no_network=True, resolve_entities=False)
_Judge = Callable[[Document], Iterator[tuple[str, str]]]


def _header(document: Document) -> Iterator[tuple[str, str]]:
    if document.texts("c:typeId/@extension") != ["POCD_HD000040"]:
        yield "/typeId", "le type du document n’est pas celui d’un CDA"
    if not document.all(f"c:templateId[@root='{_FRCP}' and @extension='2022.01']"):
        yield "/templateId", "le document ne se déclare pas conforme au modèle FRCP 2022.01"


def _case_status(document: Document) -> Iterator[tuple[str, str]]:
    said = [v for v in document.values("ORG-127") if v.get("code") or v.get("nullFlavor")]
    if len(said) != 1:
        yield "/component", "le statut du cas (enregistré ou discuté) doit être dit une fois"
    if any(v.get("code") == "ORG-128" for v in said) and not document.of("MED-249"):
        yield "/component", "un cas seulement enregistré doit nommer le référentiel suivi"


def _nature(document: Document) -> Iterator[tuple[str, str]]:
    organ = document.of("ORG-118") and document.of("ORG-119")
    care = document.of("ORG-138")
    for value in document.values("GEN-098"):
        if value.get("code") == "ORG-117" and (not organ or care):
            yield "/component", "une RCP d’appareil nomme son appareil et ses organes, et rien d’autre"
        if value.get("code") == "ORG-132" and (not care or organ):
            yield "/component", "une RCP transversale nomme ses soins, et rien d’autre"


def _references(document: Document) -> Iterator[tuple[str, str]]:
    anchors = Counter(said.get("ID") or "" for said in document.anchors)
    for name, times in anchors.items():
        if times > 1:
            yield f"#{name}", "un même repère est posé deux fois dans le texte"
    for target in {reference.get("value") or "" for reference in document.every("reference")}:
        if target.startswith("#") and target[1:] not in anchors:
            yield target, "une donnée codée renvoie à un texte qui n’existe pas"


def _ids(document: Document) -> Iterator[tuple[str, str]]:
    seen = Counter(document.texts("c:component/descendant::c:id[not(@extension)]/@root"))
    for value, times in seen.items():
        if times > 1:
            yield value, "un même identifiant désigne deux éléments du corps"


def _narratives(document: Document) -> Iterator[tuple[str, str]]:
    for section in document.all("descendant::c:section[not(c:component) or c:entry][not(normalize-space(c:text))]"):
        yield f"/section[{''.join(document.texts('c:code/@code', section))}]", "une section n’a pas de texte"


def _zones(document: Document) -> Iterator[tuple[str, str]]:
    for element in document.every("time", "effectiveTime", "low", "high"):
        value = element.get("value") or ""
        if _LETTERED.match(value) and not _TIME.fullmatch(value):
            yield etree.QName(element).localname, "une heure est écrite sans son fuseau"


def _meeting(document: Document) -> Iterator[tuple[str, str]]:
    numbers = document.all("c:componentOf/c:encompassingEncounter/c:id")
    distinct = {(n.get("root"), n.get("extension")) for n in numbers if n.get("root")}
    if len(distinct) < 3:
        yield "/componentOf", "le réseau, le 3C et la RCP doivent avoir chacun un identifiant"
    if not document.all("c:componentOf//c:healthCareFacility/c:code[@code]"):
        yield "/componentOf", "le type de l’établissement qui accueille la réunion est inconnu"


def _people(document: Document) -> Iterator[tuple[str, str]]:
    roles = (
        ("coordonnateur", "c:participant[@typeCode='RESP']"),
        ("demandeur", "c:participant[@typeCode='REFB']"),
        ("médecin traitant (éventuellement inconnu)", "c:participant[@typeCode='INF'][c:functionCode/@code='PCP']"),
    )
    for role, path in roles:
        if len(document.all(path)) != 1:
            yield "/participant", f"il faut un {role} et un seul"
    counted = "c:participant[@typeCode='PRF'][c:functionCode/@code='353']"
    people = Counter(document.texts(f"{counted}/c:associatedEntity/c:id/@extension"))
    if any(times > 1 for times in people.values()):
        yield "/participant", "une même personne est comptée deux fois dans le quorum"
    reached = any(value.get("code") == "ORG-126" for value in document.values("ORG-125"))
    if reached and not document.all(counted):
        yield "/participant", "le quorum est dit atteint sans que ses membres soient nommés"
    responsible = (
        ("auteur", "c:author/c:assignedAuthor"),
        ("responsable", "c:legalAuthenticator/c:assignedEntity"),
    )
    for role, path in responsible:
        if not document.all(f"{path}/c:id[@extension]"):
            yield f"/{path.partition(':')[2]}", f"le {role} du document n’a pas de numéro RPPS"


_SHAPES = {
    "1.2.250.1.71.4.2.1": (_IDNPS, "un numéro national de professionnel est mal formé"),
    "1.2.250.1.71.4.2.2": (_IDNST, "un numéro national de structure est absent ou mal formé"),
    **{f"1.2.250.1.213.1.4.{n}": (_INS, "le matricule INS est mal formé") for n in (8, 9, 10, 11)},
}


def _numbers(document: Document) -> Iterator[tuple[str, str]]:
    for element in document.every("id"):
        oid, said = element.get("root") or "", element.get("extension") or ""
        if oid not in _SHAPES:
            continue
        shape, text = _SHAPES[oid]
        if not shape.fullmatch(said):
            yield f"id[{oid}]", text
        elif shape is _INS and said[13:] != nir_key(said[:13]):
            yield f"id[{oid}]", "la clé du matricule INS est fausse"
    if not document.all("c:recordTarget/c:patientRole/c:id"):
        yield "/recordTarget", "le patient n’a ni INS qualifiée ni numéro local"


def _version(document: Document) -> Iterator[tuple[str, str]]:
    number = document.texts("c:versionNumber/@value")
    replaced = document.texts("c:relatedDocument[@typeCode='RPLC']/c:parentDocument/c:id/@root")
    if number and (number[0] == "1") == bool(replaced):
        yield "/relatedDocument", "une première version ne remplace rien, une suivante remplace la précédente"
    identity = [(i.get("root"), i.get("extension")) for i in document.all("c:id | c:setId")]
    if len(set(identity)) != len(identity):
        yield "/id", "la version et l’ensemble des versions portent le même identifiant"


def _ranks(document: Document) -> Iterator[tuple[str, str]]:
    said = document.texts("c:versionNumber/@value")
    replaced = document.texts("c:relatedDocument[@typeCode='RPLC']/c:parentDocument/c:versionNumber/@value")
    if not all(number.isascii() and number.isdigit() and int(number) > 0 for number in (*said, *replaced)):
        yield "/versionNumber", "le rang d’une version n’est pas un entier positif"
    elif said and any(int(old) >= int(said[0]) for old in replaced):
        yield "/relatedDocument", "la version remplacée n’est pas antérieure"


def _periods(document: Document) -> Iterator[tuple[str, str]]:
    for period in document.all("descendant::c:effectiveTime[c:low/@value and c:high/@value]"):
        low, high = (document.texts(f"c:{bound}/@value", period)[0][:8] for bound in ("low", "high"))
        known = min(len(low), len(high))
        if low[:known] > high[:known]:
            yield "/effectiveTime", "une période finit avant de commencer"


def _attendance(document: Document) -> Iterator[tuple[str, str]]:
    """Nobody sits twice: counted in the quorum and outside of it, or twice outside of it."""
    sat = "c:participant[@typeCode='PRF'][c:functionCode/@code='353' or c:functionCode/@code='CORRE']"
    people = Counter(document.texts(f"{sat}/c:associatedEntity/c:id/@extension"))
    if any(times > 1 for times in people.values()):
        yield "/participant", "une même personne figure deux fois parmi les présents"


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
    "FRCP-11": values.labels,
    "FRCP-12": values.treatments,
    "FRCP-13": values.performance,
    "FRCP-14": values.tumour,
    "FRCP-15": _version,
    "FRCP-16": values.lists,
    "FRCP-17": values.tnm,
    "FRCP-18": values.answers,
    "FRCP-19": _ranks,
    "FRCP-20": _periods,
    "FRCP-21": _attendance,
    "FRCP-22": values.progression,
}

HEADER_RULES = frozenset({"FRCP-07", "FRCP-08", "FRCP-09", "FRCP-10", "FRCP-15", "FRCP-19", "FRCP-20", "FRCP-21"})
"""The rules that look at the header: those of a document of another model whose header is the same."""
