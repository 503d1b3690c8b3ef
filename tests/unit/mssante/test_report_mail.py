from __future__ import annotations

import base64
import dataclasses
import email
import email.policy
import io
import unicodedata
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
from lxml import etree
from msgspec.structs import replace

from gateway.errors import InvalidContent
from gateway.mssante import xdm_reader
from gateway.mssante.report_mail import Forms, ReportMail
from gateway.mssante.translate import Composer
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp import templates
from gateway.rcp.ports import Letter, ReportLetter
from gateway.rcp.report_content import Organisation, Person, Replaced
from gateway.terminology import mappings_dir
from tests.report_samples import content

FORMS = Forms(
    Sender(
        source_id="1.2.250.1.999.77",
        organisation=Organisation(name="3C"),
        application="rcp-gateway",
        version="0",
        publisher="essai",
    )
)
MAILS = ReportMail(address="rcp@ch-exemple.mssante.fr", nil="123456", name="RCP Oncologie")


def _letter(facts=None, **more):
    facts = facts or content()
    known = {
        "kind": "M6",
        "key": "M6|d|s|p|1",
        "at": datetime(2026, 11, 26, 17, 30, tzinfo=UTC),
        "address": "paul.durant@medecin.mssante.fr",
        "recipient": facts.treating_physician or facts.requester,
        "content": facts,
        "forms": FORMS.render(facts),
        "signature": "Le secrétariat du 3C",
    }
    return ReportLetter(**(known | more))


def _read(sealed):
    return email.message_from_bytes(sealed.content, policy=email.policy.default)


EVIL = "\r\nBcc: voleur@example.org\u2028\x00\u202efdp.exe"


def test_a_name_is_never_a_header_nor_stops_a_mail():
    """Names come from others' software, which may hold anything; the report leaves all the same, and says them flat."""
    facts = content()
    patient = replace(facts.patient, birth_family="PAT-TROIS" + EVIL, birth_given="Dominique" + EVIL)
    who = Person(family="DURANT" + EVIL, given="Paul")
    report = _read(MAILS.seal(_letter(replace(facts, patient=patient), recipient=who)))
    letter = Letter(
        kind="M1", key="k", at=datetime(2026, 3, 1, tzinfo=UTC), address="a@b.mssante.fr", name="Dr DURANT" + EVIL,
        subject="RCP", body="Bonjour.",
    )  # fmt: skip
    notice = _read(Composer(address="rcp@ch-exemple.mssante.fr", nil="123456").seal(letter))
    assert notice["To"].addresses[0].display_name == "Dr DURANT Bcc: voleur@example.org fdp.exe"
    for mail in (report, notice):
        assert mail["Bcc"] is None
        assert [one.addr_spec for one in mail["To"].addresses] in (
            ["paul.durant@medecin.mssante.fr"],
            ["a@b.mssante.fr"],
        )
    said = str(report["Subject"]) + "".join(part.get_filename() for part in report.iter_attachments())
    assert not any(unicodedata.category(one) in {"Cc", "Cf", "Zl"} for one in said)
    assert "BCC: VOLEUR@EXAMPLE.ORG FDP.EXE" in report["Subject"]


def test_the_same_letter_gives_the_same_bytes():
    assert MAILS.seal(_letter()) == MAILS.seal(_letter())
    assert MAILS.seal(_letter()).message_id != MAILS.seal(_letter(key="M6|d|s|q|1")).message_id


def test_greeting_patient_and_meeting_are_named_in_french():
    body = _read(MAILS.seal(_letter())).get_body().get_content()
    assert body.splitlines()[0] == "Bonjour Docteur DURANT,"
    assert "RCP Tumeurs digestives du 26/11/2026 pour PAT-TROIS DOMINIQUE, née le 28/03/1979" in body
    assert "Le secrétariat du 3C – Secrétariat des RCP : 05 56 00 12 40" in body


def test_the_identity_may_be_left_out_of_the_subject():
    short = ReportMail(address="rcp@ch-exemple.mssante.fr", nil="1", identity_in_subject=False)
    assert _read(short.seal(_letter()))["Subject"] == "XDM/1.0/DDM+CR de réunion de concertation pluridisci"


def test_a_partial_birth_date_is_left_out_of_the_subject():
    facts = content("minimal")
    subject = _read(MAILS.seal(_letter(facts)))["Subject"]
    assert subject == "XDM/1.0/DDM+CR de réunion de concertation pluridisci SANSINS JULES"


@pytest.mark.parametrize("qualified", [True, False])
def test_header_says_whether_the_ins_is_qualified(qualified):
    facts = content()
    facts = replace(facts, patient=replace(facts.patient, ins_qualified=qualified))
    assert _read(MAILS.seal(_letter(facts)))["X-MSS-INS"] == ("O" if qualified else "N")


def test_above_the_limit_nothing_is_made_and_the_limit_is_named():
    small = ReportMail(address="rcp@ch-exemple.mssante.fr", nil="1", max_bytes=20_000)
    with pytest.raises(InvalidContent, match="20000"):
        small.seal(_letter())


def test_threads_answer_the_first_mail_to_the_same_person():
    first = content()
    replaced = Replaced(document_id=first.document_id, version=1, validated_at=first.written_at - timedelta(days=1))
    second = replace(
        first, version=2, document_id=replace(first.set_id, root=f"{first.set_id.root}.2"), replaces=replaced
    )
    mail = _read(MAILS.seal(_letter(second, previous=("a@x.fr", "b@x.fr"))))
    assert mail["In-Reply-To"] == "<a@x.fr>"
    assert mail["References"] == "<a@x.fr> <b@x.fr>"
    assert "Ce document annule et remplace celui du 25/11/2026." in mail.get_body().get_content()


def test_read_receipt_goes_to_the_sending_mailbox():
    assert _read(MAILS.seal(_letter()))["Disposition-Notification-To"] == "<rcp@ch-exemple.mssante.fr>"


OUTSIDE = "isabelle.durant@orange.example"
LINK = {
    "kind": "M5",
    "forms": (),
    "link": "https://a.example/dossiers/7K3Q/compte-rendu",
    "platform": "https://a.example",
}


def test_a_link_reads_as_the_specification_prints_it_and_carries_nothing():
    facts = replace(content(), quorum="non-atteint")
    mail = _read(MAILS.seal(_letter(facts, **LINK)))
    assert mail["Subject"] == "RCP – Compte rendu disponible"
    assert mail.get_content().replace("\r\n", "\n") == (
        "Bonjour Docteur DURANT,\n\n"
        "Le compte rendu de la réunion Tumeurs digestives du 26/11/2026 concernant PAT-TROIS DOMINIQUE, née le "
        "28/03/1979, a été validé par Docteur MERCIER le 26/11/2026 à 18h15.\n"
        "Le quorum n'était pas atteint : cet avis ne vaut pas proposition de RCP au sens réglementaire.\n\n"
        "Le consulter ou le télécharger : https://a.example/dossiers/7K3Q/compte-rendu\n"
    )
    assert (mail["X-MSS-NIL"], mail["X-MSS-CODECDA"], mail["X-MSS-INS"]) == ("123456", None, None)
    assert mail["Auto-Submitted"] == "auto-generated"
    assert not mail.is_multipart()
    spaced = _read(MAILS.seal(_letter(facts, **LINK, spaced_hours=True))).get_content()
    assert "à 18\u00a0h\u00a015." in spaced


@pytest.mark.parametrize(("kind", "forms"), [("M6", None), ("M6r", None), ("M6", ())])
def test_no_document_and_no_identity_leave_mssante(kind, forms):
    letter = _letter(kind=kind, address=OUTSIDE, **({} if forms is None else {"forms": forms}))
    with pytest.raises(InvalidContent, match="mail-hors-mssante"):
        MAILS.seal(letter)


@pytest.mark.parametrize(
    "address", [OUTSIDE, "dr@mssante.fr.pirate.example", "dr@fauxmssante.fr", "dr@medecin.mssante.fr.example"]
)
@pytest.mark.parametrize("kind", ["M5", "M5r"])
def test_outside_mssante_a_link_names_nobody(address, kind):
    raw = MAILS.seal(_letter(address=address, **LINK | {"kind": kind}))
    mail = _read(raw)
    said = f"{mail['Subject']} {mail.get_content()}"
    assert "Connectez-vous" in said
    assert "https://a.example" in said
    facts = content()
    for secret in ("PAT-TROIS", "DOMINIQUE", "28/03/1979", "digestives", "7K3Q", facts.patient.ins.extension):
        assert secret not in said
        assert secret.encode() not in raw.content


def test_an_address_that_the_directory_names_is_inside_whatever_its_domain():
    """The sheet: never by suffix alone, other domains exist in the directory (mssante.md 1.2)."""
    mail = _read(MAILS.seal(_letter(address="paul.durant@operateur.example", listed=True)))
    assert mail["X-MSS-CODECDA"] == "34794-8"


@pytest.mark.parametrize(
    "change",
    [
        ("Contient : patient\n", "Contient : patient\nVariante neutre : M5n\n"),
        (None, "Objet : XDM/1.0/DDM+CR\nContient : rien\n\nBonjour,\n\nCi-joint un document.\n"),
    ],
)
def test_an_operator_s_text_lets_no_document_out(change, tmp_path):
    usual = (mappings_dir() / "messages" / "M6.txt").read_text(encoding="utf-8")
    old, new = change
    (tmp_path / "M6.txt").write_text(usual.replace(old, new) if old else new, encoding="utf-8")
    templates.use(tmp_path)
    try:
        assert _read(MAILS.seal(_letter()))["X-MSS-CODECDA"] == "34794-8"
        with pytest.raises(InvalidContent, match="mail-hors-mssante"):
            MAILS.seal(_letter(address=OUTSIDE))
    finally:
        templates.use(None)


BOX = "279035121518989@patient.mssante.fr"


def _visible(**more):
    facts = replace(content(), visibility=())
    known = {"kind": "M6p", "recipient": None, "address": BOX, "key": "M6p|d|s|r|1", "reply_to": MAILS.address}
    return _letter(more.pop("facts", facts), **known | more)


def test_the_patient_s_own_copy():
    raw = MAILS.seal(_visible())
    mail = _read(raw)
    assert content().patient.ins.extension == BOX.partition("@")[0]
    assert mail["To"].addresses[0].addr_spec == BOX
    assert mail["To"].addresses[0].display_name == ""
    assert (mail["X-MSS-MES"], mail["X-MSS-INS"], mail["X-MSS-CODECDA"]) == ("FIN", "O", "34794-8")
    assert mail["X-MSS-NIL"] == "123456"
    assert mail["Reply-To"] is None
    assert mail["Disposition-Notification-To"] is None
    assert b"\nSubject: XDM/1.0/DDM+CR de " in raw.content.replace(b"\r\n", b"\n")
    body = mail.get_body().get_content()
    assert body.splitlines()[0] == "Bonjour,"
    assert "réunion de concertation pluridisciplinaire Tumeurs digestives du 26/11/2026" in body
    assert "annule et remplace" not in body
    assert "Bonjour Docteur" not in body
    names = [part.get_filename() for part in mail.iter_attachments()]
    assert names[0] == "IHE_XDM.zip"
    assert names[1].endswith("_PAT-TROIS_DOMINIQUE.pdf")
    assert MAILS.seal(_visible()) == raw


def test_a_later_version_says_to_the_patient_what_it_replaces_when_he_had_it():
    facts = _visible().content
    facts = replace(
        facts,
        version=2,
        replaces=Replaced(document_id=facts.document_id, version=1, validated_at=facts.written_at - timedelta(days=1)),
    )
    first = _read(MAILS.seal(_visible(facts=facts)))
    assert "annule et remplace" not in first.get_body().get_content()
    later = _read(MAILS.seal(_visible(facts=facts, previous=("a@x.fr",))))
    assert "Il annule et remplace celui du 25/11/2026" in later.get_body().get_content()
    assert later["In-Reply-To"] == "<a@x.fr>"


def test_what_is_no_longer_valid_is_told_to_the_patient_without_a_document_or_a_name():
    mail = _read(MAILS.seal(_visible(kind="M6pr", forms=(), previous=("a@x.fr",))))
    assert not mail.is_multipart()
    assert (mail["X-MSS-MES"], mail["X-MSS-CODECDA"], mail["X-MSS-INS"]) == ("FIN", None, None)
    assert mail["Subject"] == "RCP – Compte rendu retiré"
    said = mail.get_content()
    assert "n'est plus valable" in said
    assert "PAT-TROIS" not in said


@pytest.mark.parametrize(
    "change",
    [
        {"address": "paul.durant@medecin.mssante.fr"},
        {"address": "paul.durant@medecin.mssante.fr", "kind": "M6pr", "forms": ()},
        {"address": "279035121518990@patient.mssante.fr"},
        {"facts": content()},
        {"facts": replace(content(), visibility=(), patient=replace(content().patient, ins_qualified=False))},
        {"facts": replace(content("minimal"), visibility=())},
        {"kind": "M6", "recipient": content().requester},
        {"kind": "M5", "recipient": content().requester, "forms": ()},
        {"address": OUTSIDE, "listed": True},
    ],
)
def test_a_patient_s_mailbox_gets_his_own_copy_alone_and_nobody_else_does(change):
    with pytest.raises(InvalidContent, match="mail-patient"):
        MAILS.seal(_visible(**change))


N1_FORMS = dataclasses.replace(FORMS, with_n1=True)


def _archive(mail):
    [given] = [part for part in mail.iter_attachments() if part.get_filename() == "IHE_XDM.zip"]
    archive = zipfile.ZipFile(io.BytesIO(given.get_payload(decode=True)))
    root = etree.fromstring(archive.read("IHE_XDM/SUBSET01/METADATA.XML"))
    return archive, lambda path: root.xpath(path, namespaces={"r": "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"})


def test_two_documents_say_so_and_each_has_its_pdf():
    """Subject « 2 documents », one code a CDA, one PDF a CDA: mssante.md 2.2, 2.3, 2.5 (B08)."""
    facts = content()
    forms = N1_FORMS.render(facts)
    raw = MAILS.seal(_letter(facts, forms=forms))
    mail = _read(raw)
    assert mail["Subject"] == "XDM/1.0/DDM+2 documents PAT-TROIS DOMINIQUE 28/03/1979"
    assert b"\nSubject: XDM/1.0/DDM+2 documents PAT-TROIS" in raw.content.replace(b"\r\n", b"\n")
    assert (mail["X-MSS-CODECDA"], mail["X-MSS-INS"]) == ("34794-8,34794-8", "O")
    kept = {form.form: form.content for form in forms}
    archive, find = _archive(mail)
    assert archive.read("IHE_XDM/SUBSET01/DOC0001.XML") == kept["cda"]
    assert archive.read("IHE_XDM/SUBSET01/DOC0002.XML") == kept["n1"]
    inside = etree.fromstring(kept["n1"]).xpath("//*[local-name()='nonXMLBody']/*/text()")
    pages = {p.get_filename(): p.get_payload(decode=True) for p in mail.iter_attachments()}
    del pages["IHE_XDM.zip"]
    stem = "20261126_CR de réunion de concertation pluridisci_PAT-TROIS_DOMINIQUE"
    assert list(pages) == [f"{stem}.pdf", f"{stem}_N1.pdf"]
    assert set(pages.values()) == {base64.b64decode("".join(inside)), kept["pdf"]} == {kept["pdf"]}
    assert len(find("//r:ExtrinsicObject")) == len(find("//r:Association")) == 2
    assert len(find("//r:RegistryPackage")) == 1
    assert find("//r:Association/@targetObject") == find("//r:ExtrinsicObject/@id")
    short = ReportMail(address="rcp@ch-exemple.mssante.fr", nil="1", identity_in_subject=False)
    assert _read(short.seal(_letter(facts, forms=forms)))["Subject"] == "XDM/1.0/DDM+2 documents"


def test_both_documents_are_replaced_and_taken_back_together():
    first = content()
    replaced = Replaced(document_id=first.document_id, version=1, validated_at=first.written_at)
    root = f"{first.set_id.root}.2"
    second = replace(first, version=2, document_id=replace(first.document_id, root=root), replaces=replaced)
    action = "//r:Slot[@name='urn:action:extraMetadataSlot']//r:Value/text()"
    # What an earlier version had is replaced even where the setting is off by now.
    forms = FORMS.render(second, with_n1=True)
    _, find = _archive(_read(MAILS.seal(_letter(second, forms=forms))))
    assert find(action) == ["C", "C"]
    assert {form.form for form in FORMS.render(second)} == {"cda", "pdf", "xdm"}
    kept = {form.form: form.content for form in forms}
    parents = {
        name: etree.fromstring(kept[name]).xpath("//*[local-name()='parentDocument']/*[local-name()='id']/@root")
        for name in ("cda", "n1")
    }
    earlier = {form.form: form.content for form in N1_FORMS.render(first)}
    assert parents == {name: etree.fromstring(earlier[name]).xpath("/*/*[local-name()='id']/@root") for name in parents}

    withdrawal = FORMS.withdrawal(second, kept["cda"], kept["n1"])
    mail = _read(MAILS.seal(_letter(second, kind="M6r", forms=(withdrawal,))))
    archive, find = _archive(mail)
    assert find(action) == ["D", "D"]
    assert archive.read("IHE_XDM/SUBSET01/DOC0002.XML") == kept["n1"]
    assert mail["Subject"].startswith("XDM/1.0/DDM+2 documents PAT-TROIS")
    assert mail["X-MSS-CODECDA"] == "34794-8,34794-8"


def test_another_gateway_takes_both_documents():
    [xdm] = [form.content for form in N1_FORMS.render(content()) if form.form == "xdm"]
    found = xdm_reader.read(xdm)
    assert [(one.header.format, one.format_code) for one in found.entries] == [
        ("structure", "urn:asip:ci-sis:frcp:2011"),
        ("n1", "urn:ihe:iti:xds-sd:pdf:2008"),
    ]
    assert found.notes == ()
