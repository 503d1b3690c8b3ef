"""Faults put into a valid FRCP that the national rules accept: a seed chooses where each one strikes.

Each takes the document and a source of chance, changes the document, and names the rule of ours that must see it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from lxml import etree

NS = {"c": "urn:hl7-org:v3"}
Mutation = Callable[[etree._Element, random.Random], None]
_OBSERVATION = ".//c:observation[c:code/@code='{}']"


def _all(root, path):
    found = root.xpath(path, namespaces=NS)
    assert found, path
    return found


def _zone_dropped(root, chance):
    struck = chance.choice(
        _all(root, ".//*[contains(@value, '+') and string-length(@value) > 12][not(self::c:telecom)]")
    )
    struck.set("value", struck.get("value").partition("+")[0])


def _reference_dangling(root, chance):
    chance.choice(_all(root, ".//c:entry//c:reference")).set("value", "#nulle-part")


def _quorum_member_twice(root, chance):
    member = chance.choice(_all(root, "c:participant[c:functionCode/@code='353']"))
    member.addnext(etree.fromstring(etree.tostring(member)))


def _letter_of_no_edition(root, chance):
    code, value = chance.choice([("21905-5", "T9"), ("21906-3", "N7"), ("21907-1", "M3")])
    _all(root, _OBSERVATION.format(code) + "/c:value")[0].set("code", value)


def _recorded_without_guideline(root, _chance):
    status = _all(root, _OBSERVATION.format("ORG-127") + "/c:value")[0]
    status.set("code", "ORG-128")
    status.set("displayName", "Cas enregistré")
    for entry in _all(root, _OBSERVATION.format("MED-249") + "/.."):
        entry.getparent().remove(entry)


def _matricule_altered(root, chance):
    number = _all(root, "c:recordTarget/c:patientRole/c:id[starts-with(@root, '1.2.250.1.213.1.4.')]")[0]
    said, at = number.get("extension"), chance.randrange(7, 13)
    number.set("extension", f"{said[:at]}{(int(said[at]) + 1) % 10}{said[at + 1 :]}")


def _board_without_organ(root, _chance):
    for relation in _all(root, _OBSERVATION.format("ORG-119") + "/.."):
        relation.getparent().remove(relation)


def _narrative_emptied(root, chance):
    text = chance.choice(_all(root, ".//c:section[not(c:component)]/c:text"))
    for child in list(text):
        text.remove(child)
    text.text = None


def _entry_id_copied(root, chance):
    first, second = chance.sample(_all(root, ".//c:structuredBody//c:observation/c:id"), 2)
    second.set("root", first.get("root"))


def _label_of_another_code(root, chance):
    codes = ["ORG-125", "ORG-127", "MED-243", "MED-239", "GEN-098", "ORG-118", "GEN-065"]
    _all(root, _OBSERVATION.format(chance.choice(codes)) + "/c:value")[0].set("displayName", "Autre chose")


def _answer_turned(root, chance):
    path = ".//c:observation/c:value[@value='true' or @value='false']"
    value = chance.choice(_all(root, path))
    value.set("value", "false" if value.get("value") == "true" else "true")


def _period_reversed(root, chance):
    period = chance.choice(_all(root, ".//c:entry//c:effectiveTime[c:low/@value]"))
    for high in period.findall("c:high", NS):
        period.remove(high)
    etree.SubElement(period, "{urn:hl7-org:v3}high").set("value", "19990101")


MUTATIONS: dict[str, tuple[str, Mutation]] = {
    "une heure sans fuseau": ("FRCP-07", _zone_dropped),
    "un renvoi dans le vide": ("FRCP-04", _reference_dangling),
    "un membre du quorum compté deux fois": ("FRCP-09", _quorum_member_twice),
    "une lettre du TNM qui n’existe pas": ("FRCP-17", _letter_of_no_edition),
    "un cas enregistré sans référentiel": ("FRCP-02", _recorded_without_guideline),
    "un chiffre de l’INS changé": ("FRCP-10", _matricule_altered),
    "une RCP d’appareil sans organe": ("FRCP-03", _board_without_organ),
    "une section sans texte": ("FRCP-06", _narrative_emptied),
    "un identifiant d’entrée copié": ("FRCP-05", _entry_id_copied),
    "le libellé d’un autre code": ("FRCP-11", _label_of_another_code),
    "un oui changé en non": ("FRCP-18", _answer_turned),
    "une période à l’envers": ("FRCP-20", _period_reversed),
}


def mutated(document: bytes, name: str, seed: int) -> etree._Element:
    """The document with that fault; the same seed strikes the same place."""
    root = etree.fromstring(document)
    MUTATIONS[name][1](root, random.Random(f"{name}/{seed}"))  # noqa: S311 - a seed for tests, no secret
    return root
