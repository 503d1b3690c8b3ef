"""The value sets of the two national cancer documents, code by code as the national files print them."""

from __future__ import annotations

import pytest
from lxml import etree

from gateway.terminology import code_list, load, mappings_dir
from tests.report_samples import cisis

pytestmark = pytest.mark.skipif(cisis() is None, reason="les règles nationales (CISIS_DIR) ne sont pas sur ce poste")

FILES = {
    "FRCP-Appareil": "JDV_RCP_Appareil",
    "FRCP-Morphologie": "JDV_Morphologie",
    "FRCP-NatureDiscussion": "JDV_NatureDiscussion",
    "FRCP-OMS": "JDV_OMSEchPerf",
    "FRCP-OMS-Interpretation": "JDV_OMSInterpret",
    "FRCP-Organe": "JDV_RCP_Organe",
    "FRCP-PhaseCancer": "JDV_PhaseCancer",
    "FRCP-StatutCasPresente": "JDV_StatutCasPresente",
    "FRCP-StatutDoc": "JDV_StatutDoc",
    "FRCP-StatutQuorum": "JDV_StatutQuorum",
    "FRCP-TraitementSoins": "JDV_TraitementSoins_FRCP",
    "FRCP-Tumeur": "JDV_Tumeur",
    "FRCP-TypeTraitement": "JDV_TypeTraitement_FRCP",
    "PPS-AccompagnementSocial": "JDV_TypeAccompagnementSocioPro",
    "PPS-EffetsSecondaires": "JDV_GestionEffetsSecondaires",
    "PPS-MesuresAssociees": "JDV_MesuresAssociees",
    "PPS-MotifMiseAJour": "JDV_MotifMiseAJour",
    "PPS-SoinsSupport": "JDV_SoinsOncoDeSupport",
    "PPS-TypeSuivi": "JDV_TypeDeSuivi",
    "PPS-TypeTraitement": "JDV_TypeTraitementPPS",
}
# Not among the files that the rules load: the examples use one code of the first, a section of its own the second.
WITHOUT_A_FILE = {"FRCP-Lateralite", "FRCP-TypeConclusion"}


@pytest.mark.parametrize("name", FILES)
def test_a_list_is_the_national_one_code_by_code(name):
    value_set = etree.parse(str(cisis() / "jeuxDeValeurs" / f"{FILES[name]}_CISIS.xml")).find(".//{*}ValueSet")
    national = {
        (concept.get("code"), concept.get("codeSystem"), " ".join(concept.get("displayName").split()))
        for concept in value_set.iter("{*}Concept")
    }
    ours = code_list(name)
    assert {(concept.code, concept.oid, concept.label) for concept in ours} == national
    assert ours.valueset_oid == value_set.get("id")


def test_every_list_of_the_two_documents_is_compared():
    held = {name for name in load(mappings_dir()).lists if name.startswith(("FRCP-", "PPS-"))}
    assert held == FILES.keys() | WITHOUT_A_FILE


def test_the_side_of_the_example_is_of_our_list():
    example = etree.parse(str(cisis() / "ExemplesCDA" / "CANCER-FRCP_2022.01_Appareil.xml"))
    side = example.find(".//{*}targetSiteCode/{*}qualifier/{*}value")
    ours = code_list("FRCP-Lateralite").require(side.get("code"))
    assert (ours.oid, ours.label) == (side.get("codeSystem"), side.get("displayName"))
