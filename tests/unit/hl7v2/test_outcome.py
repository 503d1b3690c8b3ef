"""What a sender is told: the acknowledgements of the sheet field by field, judged by a parser of others."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from gateway import errors
from gateway.errors import Fault, GatewayError, InvalidContent, Unavailable, Unsupported
from gateway.hl7v2 import outcome, segments
from gateway.hl7v2.outcome import ACCEPTED, Verdict
from gateway.rcp.received_codes import LABELS
from tests import error_codes
from tests import hl7_samples as samples

AT = datetime(2026, 11, 26, 18, 30, 6, tzinfo=ZoneInfo("Europe/Paris"))
HEAD = segments.head(samples.message())


def without_own(ack: str) -> list[list[str]]:
    """Segments of an acknowledgement without what its writer chooses: MSH-10, and our words in ERR-8."""
    found = [line.split("|") for line in ack.strip().replace("\r", "\n").split("\n")]
    for fields in found:
        if fields[0] == "MSH":
            fields[9] = ""
        if fields[0] == "ERR":
            del fields[6:]
            fields[:] = "|".join(fields).rstrip("|").split("|")
    return found


@pytest.mark.parametrize(
    ("expected", "content", "verdict"),
    [
        (samples.ACKS[0], samples.message(), ACCEPTED),
        (
            samples.ACKS[1],
            samples.replacement(),
            outcome.verdict(InvalidContent("hl7-champ-absent", "TXA-13 est obligatoire.", expression="TXA^1^13")),
        ),
    ],
)
def test_the_acknowledgements_of_the_sheet(expected, content, verdict):
    ack = outcome.ack(segments.head(content), verdict, AT).decode()
    assert without_own(ack) == without_own(expected)


def test_the_acknowledgement_of_profile_l_names_the_integration_error():
    # The sheet's receiver is called DPI, and its clock runs ten minutes later; the rest is its third example.
    content = samples.message(samples.LPS)
    ack = outcome.ack(segments.head(content), outcome.of_reason("document-patient-inconnu"), AT).decode()
    expected = samples.ACKS[2].replace("20261126184013", "20261126183006")
    assert without_own(ack) == without_own(expected)


@pytest.mark.parametrize("verdict", [ACCEPTED, outcome.of_reason("version-perimee")])
@pytest.mark.parametrize("content", [samples.message(), samples.message(samples.ORU), samples.deletion()])
def test_others_read_what_we_answer(content, verdict):
    ack = outcome.ack(segments.head(content), verdict, AT).decode()
    read = hl7.parse(ack)
    assert (str(read["MSA"][0][1]), str(read["MSA"][0][2])) == (verdict.msa, segments.head(content).control_id)
    judged = parse_message(ack, validation_level=VALIDATION_LEVEL.STRICT)
    assert judged.validate()


@pytest.mark.parametrize(("charset", "codec"), [("8859/1", "latin-1"), ("8859/15", "iso8859_15"), ("", "ascii")])
def test_the_answer_is_in_the_character_set_of_the_question(charset, codec):
    head = segments.head(samples.message(MSH_18=charset))
    told = InvalidContent("hl7-valeur", "L’évènement d’un œdème : « refusé »…")
    ack = outcome.ack(head, outcome.verdict(told), AT)
    said = ack.decode(codec)
    assert said.split("\r")[0].split("|")[17:] == ([charset] if charset else [])
    assert "?" not in said
    assert ("évènement" if charset else "evenement") in said


def test_nothing_that_a_sender_writes_of_himself_breaks_the_answer():
    hostile = segments.Head(
        parties=(("A|B^C&D~E\\F", "1.2", "ISO"), ("\\T\\",), ("x" * 200,), ("\u2028é",)),
        type="MDM",
        event="T02",
        control_id="N|1\\F\\^2",
        processing="P^T",
        version="2.6^FRA",
        country="F|R",
        charset="UNICODE UTF-8",
    )
    msh, msa, *_ = hl7.parse(outcome.ack(hostile, ACCEPTED, AT).decode())
    assert str(msa[2]) == "N\\F\\1\\E\\F\\E\\\\S\\2"
    assert str(msh[5]) == "A\\F\\B\\S\\C\\T\\D\\R\\E\\E\\F^1.2^ISO"
    assert str(msh[9]) == "ACK^T02^ACK"
    empty = outcome.ack(segments.Head(), outcome.verdict(InvalidContent("hl7-sans-msh", "x")), AT).decode()
    assert empty.split("\r")[1] == "MSA|AE|"
    assert empty.split("\r")[0].split("|")[8] == "ACK"


CATEGORIES = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, GatewayError)]


@pytest.mark.parametrize("kind", [one for one in CATEGORIES if one is not GatewayError])
def test_every_category_has_an_answer(kind):
    found = outcome.verdict(kind("quelconque", "Texte."))
    later = kind in {Unavailable, Fault}
    assert (found.msa, found.condition) == ("AR" if later else "AE", "207")
    assert found.integration == (None if later else "906")


def test_what_is_no_refusal_of_ours_is_told_without_its_words():
    found = outcome.verdict(RuntimeError("PAT-TROIS"))
    assert (found.msa, found.code) == ("AR", "erreur-interne")
    assert "PAT" not in (found.text or "")


@pytest.mark.parametrize(
    ("reason", "code", "where"),
    [
        ("version-perimee", "900", None),
        ("auteur-non-autorise", "901", None),
        ("document-patient-inconnu", "902", "PID^1^3"),
        ("traits-differents", "904", "PID^1^3"),
        ("ins-cle", "904", "PID^1^3"),
        ("traits-absents", "905", "PID^1^3"),
        ("meme-identifiant-autres-octets", "906", None),
        ("document-masque", "906", None),
    ],
)
def test_why_a_document_waits_is_an_integration_error(reason, code, where):
    found = outcome.of_reason(reason)
    assert (found.msa, found.condition, found.integration, found.where) == ("AE", "207", code, where)
    assert LABELS[code] in (found.text or "")


def test_a_label_keeps_its_capitals_and_a_place_of_another_wire_is_not_repeated():
    ack = outcome.ack(HEAD, outcome.of_reason("ins-cle"), AT).decode()
    assert "|904^INS ou traits différents de ceux qui sont connus^applicationErrorCode|" in ack
    assert outcome.verdict(InvalidContent("x", "y", expression="Patient.identifier")).where is None
    assert outcome.verdict(InvalidContent("x", "y", expression="PID^1^3^2^4")).where == "PID^1^3^2^4"


def test_every_code_that_the_wire_refuses_with_has_a_condition_of_its_own_or_is_about_the_document():
    said = {
        one.code for one in error_codes.refusals("hl7v2") if one.category not in {"unavailable", "warning", "fault"}
    }
    assert said - set(outcome.CODES) == {
        "cda-remplace",
        "documents-differents",
        "pair-mllp-inconnu",
        "partenaire-revoque",
    }
    assert all(Verdict(msa=msa, condition=one) for msa, one in outcome.CODES.values())
    assert outcome.verdict(Unsupported("hl7-message", "x")).condition == "200"
