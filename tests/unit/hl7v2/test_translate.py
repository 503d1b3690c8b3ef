"""What a message asks for: the national rules, and each malformed input of spec mssante 7.4 by its number."""

from __future__ import annotations

import itertools
import re

import pytest

from gateway.errors import GatewayError
from gateway.hl7v2 import flags, outcome, segments, translate
from tests import hl7_samples as samples
from tests.hl7_samples import DELETION, LPS, ORU, REPLACEMENT

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")


def read(content: bytes, **how: bool) -> translate.Request:
    return translate.read(segments.parse(content), **how)


def told(content: bytes, **how: bool) -> tuple[str, str | None, str | None, str | None]:
    """MSA-1, ERR-3, ERR-5 and ERR-2 of a refusal."""
    with pytest.raises(GatewayError) as error:
        read(content, **how)
    found = outcome.verdict(error.value)
    return found.msa, found.condition, found.integration, found.where


def with_line(text: str, old: str, new: str, times: int = 1) -> bytes:
    assert text.count(old) >= times
    return samples.wire(text.replace(old, new, times))


@pytest.mark.parametrize(
    ("content", "profile", "act", "rule"),
    [
        (samples.message(), "T", "nouveau", "M2"),
        (samples.replacement(), "T", "remplacement", "M2"),
        (samples.deletion(), "T", "retrait", "M2"),
        (samples.message(ORU), "T", "nouveau", "M1"),
        (samples.message(LPS), "L", "nouveau", None),
    ],
)
def test_the_messages_of_the_sheet_are_read_without_a_remark(content, profile, act, rule):
    found = read(content, strict=True)
    assert (found.profile, found.act, found.rule, found.notes) == (profile, act, rule, ())
    [(header, document)] = found.documents
    assert document == samples.cda(2 if act in {"remplacement", "retrait"} else 1)
    assert header.patient_ids[0].extension == "279035121518989"


def test_the_flags_are_those_of_the_message():
    assert read(samples.message()).flags == {
        "MASQUE_PS": False,
        "INVISIBLE_PATIENT": True,
        "INVISIBLE_REP_LEGAUX": False,
        "CONNEXION_SECRETE": False,
        "MODIF_CONF_CODE": False,
        "DESTDMP": False,
        "DESTMSSANTEPS": True,
        "DESTMSSANTEPAT": False,
        "ACK_RECEPTION": True,
        "ACK_LECTURE_MSS": True,
    }


_ASKED = {("T02", "NW", "F"), ("T10", "RO", "C"), ("T04", "CA", "D")}


@pytest.mark.parametrize(
    ("event", "order", "status"), itertools.product(("T02", "T10", "T04"), ("NW", "RO", "CA"), ("F", "C", "D"))
)
def test_h05_of_27_combinations_three_are_accepted(event, order, status):
    base = {"T02": "", "T10": REPLACEMENT, "T04": DELETION}[event]
    content = samples.message(document=samples.cda(2 if base else 1), changed=base, ORC_1=order, OBX_11=status)
    if (event, order, status) in _ASKED:
        assert read(content).act == {"T02": "nouveau", "T10": "remplacement", "T04": "retrait"}[event]
    else:
        assert told(content) == ("AE", "199", None, "ORC^1^1")


@pytest.mark.parametrize(("order", "status"), itertools.product(("NW", "RO", "CA"), ("F", "C", "D")))
def test_h05_in_an_oru_the_order_and_the_result_carry_it(order, status):
    content = samples.message(ORU, document=samples.cda(2), ORC_1=order, OBX_11=status)
    if (order, status) in {("NW", "F"), ("RO", "C"), ("CA", "D")}:
        assert read(content).act == {"NW": "nouveau", "RO": "remplacement", "CA": "retrait"}[order]
    else:
        assert told(content)[:2] == ("AE", "199")


def test_codes_outside_the_tables_and_fields_left_out_are_told():
    assert told(samples.message(ORC_1="XX")) == ("AE", "103", None, "ORC^1^1")
    assert told(samples.message(ORC_1="")) == ("AE", "101", None, "ORC^1^1")
    assert told(samples.message(OBX_11="P")) == ("AE", "103", None, "OBX^1^11")
    assert told(samples.wire(samples.without(samples.text(), "ORC"))) == ("AE", "100", None, "ORC^1")
    assert told(samples.wire(samples.without(samples.text(), "OBX|1|"))) == ("AE", "100", None, "OBX^1")
    assert told(samples.wire(samples.without(samples.text(), "PID"))) == ("AE", "100", None, "PID^1")
    assert told(samples.wire(samples.without(samples.text(), "TXA"))) == ("AE", "100", None, "TXA^1")
    assert told(samples.message(PID_3="")) == ("AE", "101", None, "PID^1^3")
    assert told(samples.message(TXA_12="")) == ("AE", "101", None, "TXA^1^12")


def test_h06_a_replacement_says_what_it_replaces():
    assert told(samples.replacement(TXA_13="")) == ("AE", "101", None, "TXA^1^13")
    assert read(samples.replacement()).documents[0][0].replaces == "1.2.250.1.999.77.1.20261126.1042.1"
    other = "1.2.250.1.999.77.1.20261126.9999.1"
    assert told(samples.replacement(TXA_13=other)) == ("AE", "207", "900", "TXA^1^13")
    # The document itself may leave it to the message; in an ORU, which has no TXA, it may not.
    silent = re.sub(rb"<relatedDocument.*?</relatedDocument>", b"", samples.cda(2), flags=re.DOTALL)
    assert silent != samples.cda(2)
    content = samples.message(changed=REPLACEMENT, document=silent)
    assert read(content).documents[0][0].replaces == "1.2.250.1.999.77.1.20261126.1042.1"
    content = samples.message(ORU, document=silent, ORC_1="RO", OBX_11="C")
    assert told(content)[:3] == ("AE", "207", "900")


def test_a_new_document_replaces_none_and_a_deletion_may_say_what_it_deletes():
    parent = "1.2.250.1.999.77.1.20261126.1042.0"
    assert told(samples.message(TXA_13=parent)) == ("AE", "199", None, "TXA^1^13")
    assert read(samples.deletion(TXA_13=parent)).act == "retrait"


@pytest.mark.parametrize(
    "said",
    [
        "1.2.250.1.999.77.1.20261126.1042.1",
        "1.2.250.1.999.77.1.20261126.1042.1^Organisation-Y",  # 3.11: official examples
        "1.2.250.1.999.77.1.20261126.1042.1^^^ISO",
        "^^1.2.250.1.999.77.1.20261126.1042.1^ISO",
    ],
)
def test_the_identifier_of_the_document_in_each_of_its_forms(said):
    assert read(samples.message(TXA_12=said)).act == "nouveau"


def test_an_identifier_that_is_not_the_document_s_is_refused():
    assert told(samples.message(TXA_12="1.2.250.1.999.77.1.20261126.1042.2"))[:2] == ("AE", "199")
    assert told(samples.message(TXA_12="42^^1.2.250.1.999.77.1.20261126.1042.1^ISO"))[:2] == ("AE", "199")
    assert told(samples.message(TXA_12="RCP-42")) == ("AE", "102", None, "TXA^1^12")


INS = "279035121518989^^^ASIP-SANTE-INS-NIR&1.2.250.1.213.1.4.10&ISO^INS"
IPP = "000123456^^^CHEX&1.2.250.1.999.77.9&ISO^PI"


@pytest.mark.parametrize(
    "pid",
    [
        INS.replace("279035121518989", "160012B12345672") + "~" + IPP,
        INS + "~" + IPP.replace("000123456", "000123457"),
        IPP.replace("1.2.250.1.999.77.9", "1.2.250.1.999.77.8"),
        "279035121518989",
        INS + "~" + INS.replace("279035121518989", "160012B12345672"),
    ],
)
def test_h07_a_patient_other_than_the_document_s_is_refused(pid):
    assert told(samples.message(PID_3=pid)) == ("AE", "199", None, "PID^1^3")


@pytest.mark.parametrize("pid", [INS, IPP, f"{INS}~{IPP}~42^^^CHU-X&000897406&N^PI"])
def test_h07_a_number_more_or_less_is_not_another_patient(pid):
    found = read(samples.message(PID_3=pid))
    assert found.notes == (() if "~" in pid else ("pid-3-partiel",))


@pytest.mark.parametrize(("charset", "codec"), [("UNICODE UTF-8", "utf-8"), ("8859/15", "iso8859_15")])
def test_h11_the_document_keeps_its_own_encoding_whatever_the_message_s(charset, codec):
    text = samples.text(MSH_18=charset, PID_5="ŒUVRÉ^€^^^^^L")
    assert read(samples.wire(text, codec)).documents[0][1] == samples.cda()


# --- 7.4, by number ----------------------------------------------------------------------------------------------


def _obx5(said: str) -> bytes:
    return samples.message(OBX_5=said)


def test_x25_bad_base64_is_rejected():
    assert told(_obx5("^text^XML^Base64^####")) == ("AE", "102", None, "OBX^1^5")
    assert told(_obx5("^text^XML^Base64^QUJ")) == ("AE", "102", None, "OBX^1^5")
    assert told(_obx5("^text^XML^Base64^")) == ("AE", "101", None, "OBX^1^5")


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\\.br\\", "\\X0D0A\\"])
@pytest.mark.parametrize("width", [64, 76])
def test_x25_base64_with_line_breaks_is_accepted(end, width):
    run = samples.encoded(samples.cda())
    wrapped = end.join(run[at : at + width] for at in range(0, len(run), width))
    content = samples.message().replace(run.encode(), wrapped.encode())
    assert read(content).documents[0][1] == samples.cda()


def test_x25_data_in_the_fourth_component_is_rejected_102():
    assert told(_obx5(f"^text^XML^{samples.encoded(samples.cda())}")) == ("AE", "102", None, "OBX^1^5")
    assert told(_obx5(f"^text^XML^{samples.encoded(samples.cda())}^Base64")) == ("AE", "102", None, "OBX^1^5")


LAFONT = "||||||||||^^X.400^camille.lafont@medecin.mssante.fr"


def test_x26_an_address_one_field_too_far_is_recovered_and_remarked():
    assert read(with_line(samples.text(), LAFONT, "|" + LAFONT)).notes == ("prt-15-decale",)


def test_x26_another_type_of_address_is_accepted():
    content = with_line(samples.text(), LAFONT, LAFONT.replace("X.400", "INTERNET"))
    assert read(content).notes == ("prt-15-type",)
    net = with_line(samples.text(), LAFONT, LAFONT.replace("^^X.400", "^NET^X.400"))  # 3.11: official examples
    assert read(net).notes == ()


@pytest.mark.parametrize(
    "address",
    [
        "camille@lafont@medecin.mssante.fr",
        "camille.lafont@medecin.mssante.fr~^^X.400^autre@medecin.mssante.fr",
        "camille.lafont@medecin.mssante.fr^autre@medecin.mssante.fr",
    ],
)
def test_x26_several_addresses_are_rejected(address):
    content = with_line(samples.text(), "camille.lafont@medecin.mssante.fr", address)
    assert told(content) == ("AE", "102", None, "PRT^2^15")
    both = with_line(samples.text(), LAFONT, f"|{LAFONT}|^^X.400^autre@medecin.mssante.fr")
    assert told(both) == ("AE", "102", None, "PRT^2^15")


def test_x27_names_that_official_examples_give_are_read_and_remarked():
    text = (
        samples.text()
        .replace("ACK_LECTURE_MSS^", "ACK_LECTURE^")
        .replace("INVISIBLE_REP_LEGAUX^", "INVISIBLE_ REP_LEGAUX^")
    )
    text = text.replace("||Y^^expandedYes-NoIndicator", "|| Y ^^ expandedYes-NoIndicator").replace(
        "2.1^CISIS", "2.1^ CISIS"
    )
    found = read(samples.wire(text), strict=True)
    assert found.flags == read(samples.message()).flags
    assert set(found.notes) == {"nom-de-metadonnee", "espaces"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RCT^Result Copies To^participation", "RCT^results Copies To^participation"),
        ("SB^Send by^participation", "SB^^participation"),
        ("ASIP-SANTE-PS&", "ASIP-SANTE- PS&"),
        ("^^^IDNPS", "^^^RPPS"),
        ("ASIP-SANTE-PS&1.2.250.1.71.4.2.1&ISO", "1.2.250.1.71.4.2.1"),
        ("||||||F\nPRT", "||||||F|\nPRT"),  # a trailing pipe after OBX-11
        ("||||||F", "|||||F|"),  # of the text for a mail: one pipe short
        ("MDM^T02^MDM_T02", "MDM^T02"),
        ("1.2.250.1.999.77.1.20261126.1042.1", "1.2.250.1.999.77.1.20261126.1042.1^Organisation-Y"),
    ],
)
def test_h12_what_official_examples_get_wrong_is_read(old, new):  # 3.11
    text = samples.text()
    assert old in text
    head, mark, tail = text.rpartition(old) if old == "||||||F" else text.partition(old)
    assert mark
    assert read(samples.wire(head + new + tail)).act == "nouveau"


def test_x28_no_character_set_another_version_no_profile():
    assert read(samples.message(MSH_18="")).notes == ("msh-18-absent",)
    assert read(samples.message(MSH_18="ASCII")).act == "nouveau"
    assert told(samples.message(MSH_12="2.3")) == ("AE", "203", None, "MSH^1^12")
    assert told(samples.message(ORU, MSH_12="2.3")) == ("AE", "203", None, "MSH^1^12")
    assert told(samples.message(MSH_21="")) == ("AE", "101", None, "MSH^1^21")
    assert told(samples.message(MSH_21="2.11^IHE_FRANCE-2.11-PAM")) == ("AE", "103", None, "MSH^1^21")
    assert told(samples.message(ORU, MSH_21="1.1^CISIS_CDA_HL7_LPS")) == ("AE", "103", None, "MSH^1^21")


def _flagged(**said: str) -> bytes:
    text = samples.text()
    for name, value in said.items():
        text = re.sub(rf"({name}\^[^|]*\|\|)[YN]", rf"\g<1>{value}", text)
    return samples.wire(text)


def test_x30_outside_the_matrix_is_refused_strictly_and_else_remarked():
    content = _flagged(DESTMSSANTEPS="Y", INVISIBLE_PATIENT="N", DESTMSSANTEPAT="N")
    assert told(content, strict=True) == ("AE", "199", None, "OBX")
    found = read(content)
    assert (found.rule, found.notes) == (None, ("matrice",))


def test_h04_of_256_combinations_24_follow_a_rule():
    names = flags.FLAGS["T"][:8]
    found = [flags.rule_of(dict(zip(names, said, strict=True))) for said in itertools.product((True, False), repeat=8)]
    assert {rule: found.count(rule) for rule in ("M1", "M2", "M3", None)} == {"M1": 8, "M2": 8, "M3": 8, None: 232}


def test_a_flag_that_is_no_yes_or_no_or_both_is_refused():
    assert told(samples.message().replace(b"DESTDMP^Destinataire DMP^MetaDMPMSS||N", b"DESTDMP^^||O")) == (
        "AE",
        "103",
        None,
        "OBX^7^5",
    )
    again = samples.text() + "\nOBX|13|CWE|MASQUE_PS^^MetaDMPMSS||Y||||||F"
    assert told(samples.wire(again))[:2] == ("AE", "198")


def test_a_flag_that_is_missing_is_remarked_and_strictly_refused():
    content = samples.wire(samples.without(samples.text(), "OBX|11|"))
    assert read(content).notes == ("metadonnee-absente",)
    assert told(content, strict=True)[:2] == ("AE", "101")


def _second(document: bytes) -> bytes:
    """The ORU of the sheet with a second observation before its metadata."""
    text = samples.text(ORU)
    more = (
        text.split("\n")[5]
        .replace("OBX|1|", "OBX|2|")
        .replace(samples.encoded(samples.cda()), samples.encoded(document))
    )
    head, mark, tail = text.partition("OBX|2|CE|MASQUE_PS")
    return samples.wire(f"{head}{more}\n{mark}{tail}")


def test_x31_the_same_content_in_two_forms_is_taken_whole():
    found = read(_second(samples.envelope()))
    assert [header.format for header, _ in found.documents] == ["structure", "n1"]
    assert len(read(_second(samples.cda())).documents) == 1


def test_x31_another_patient_or_another_content_is_207_906():
    other = samples.envelope().replace(b"279035121518989", b"160012B12345672")
    assert other != samples.envelope()
    assert told(_second(other))[:2] == ("AE", "199")  # nor is it the patient of PID-3
    later = samples.envelope().replace(b"20261126181500+0100", b"20261127181500+0100")
    assert later != samples.envelope()
    assert told(_second(later)) == ("AE", "207", "906", "OBX^2^5")
    assert told(_second(samples.cda(2))) == ("AE", "207", "906", "OBX^2^5")


def test_an_mdm_carries_one_document_and_an_oru_two():
    text = samples.text()
    document = text.split("\n")[7]
    assert told(samples.wire(f"{text}\n{document}"))[:2] == ("AE", "198")
    oru = samples.text(ORU)
    assert told(samples.wire(f"{oru}\n{oru.split(chr(10))[5]}\n{oru.split(chr(10))[5]}"))[:2] == ("AE", "198")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ADT^A01^ADT_A01", ("AE", "200")),
        ("SIU^S12^SIU_S12", ("AE", "200")),
        ("ZAM^Z02^ZAM_Z01", ("AE", "200")),
        ("", ("AE", "200")),
        ("MDM^T01^MDM_T01", ("AE", "201")),
        ("ORU^R03", ("AE", "201")),
        ("MDM", ("AE", "201")),
    ],
)
def test_messages_and_events_that_are_not_taken_are_named(kind, expected):
    assert told(samples.message(MSH_9=kind))[:2] == expected


def test_the_structure_that_an_official_table_gives_twice_is_no_matter():  # 3.11
    assert read(samples.message(LPS, MSH_9="MDM^T02^MDM^T02^MDM_T02")).act == "nouveau"


def test_who_says_that_it_is_a_test_is_refused_in_production():
    assert told(samples.message(), production=True) == ("AR", "202", None, "MSH^1^11")
    assert read(samples.message(MSH_11="P"), production=True).act == "nouveau"
    assert told(samples.message(MSH_11="X"))[:2] == ("AR", "202")


def test_a_message_without_a_number_cannot_be_told_from_another():
    assert told(samples.message(MSH_10="")) == ("AE", "101", None, "MSH^1^10")
    assert told(samples.message(MSH_10="9" * 200)) == ("AE", "102", None, "MSH^1^10")


@pytest.mark.parametrize(
    "document",
    [
        b"%PDF-1.4 seul",
        b"<ClinicalDocument/>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><ClinicalDocument xmlns="urn:hl7-org:v3">&a;</ClinicalDocument>',  # X13
        b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3">\xe9</ClinicalDocument>',  # X15
    ],
)
def test_what_is_no_document_is_told_where_it_stands(document):
    assert told(samples.message(document=document)) == ("AE", "207", "906", "OBX^1^5")


def test_a_text_for_a_mail_is_no_document():
    found = read(samples.message(ORU))  # it has two of them
    assert len(found.documents) == 1
