"""MIME of outgoing mail, judged by the standard library's parser and by hand-written expectations of mssante.md 2."""

from __future__ import annotations

import email
import email.policy
import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidContent
from gateway.mssante.envelope import Attachment, Mail, Sizes, check_address, document_subject, pdf_filename, render
from gateway.mssante.translate import Composer
from gateway.rcp.ports import Letter

PLAIN = Mail(
    key="M1|dossier|seance|810001234567",
    sender_address="rcp-onco@ch-exemple.mssante.example",
    sender_name="RCP Oncologie - CH Exemple",
    recipient_address="camille.lafont@medecin.mssante.example",
    recipient_name="Docteur Camille LAFONT",
    date=datetime(2026, 11, 24, 7, 0, 0, 123456, tzinfo=UTC),
    subject="Médecin – Notification préalable RCP",
    body="Bonjour Docteur LAFONT,\n\nŒuvre – « été » à 18h30.\n.\nFrom : un point seul.\n" + "long " * 400 + "\n",
    nil="123456",
    reply_to="secretariat-rcp@ch-exemple.mssante.example",
    read_receipt=True,
)
ZIP = Attachment("IHE_XDM.zip", "application/zip", b"PK\x03\x04" + bytes(range(256)) * 40)
PDF = Attachment(
    "20261126_CR de réunion de concertation pluridisci_PAT-TROIS_DOMINIQUE.pdf", "application/pdf", b"%PDF-1.4" * 99
)
DOCUMENT = replace(
    PLAIN,
    subject="XDM/1.0/DDM+CR de réunion de concertation pluridisci PAT-TROIS DOMINIQUE 28/03/1979",
    attachments=(ZIP, PDF),
    cda_codes=("34794-8",),
    ins_qualified=True,
    auto_submitted=False,
)


def parsed(mail):
    return email.message_from_bytes(render(mail).content, policy=email.policy.default)


def raw_header(mail, name):
    head = render(mail).content.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ")
    return [line for line in head.split(b"\r\n") if line.lower().startswith(name.lower().encode() + b":")]


@pytest.mark.req("S3-005")
def test_the_headers_of_a_notification():
    mail, sealed = parsed(PLAIN), render(PLAIN)
    assert mail["subject"] == "Médecin – Notification préalable RCP"
    assert str(make_header(decode_header(raw_header(PLAIN, "Subject")[0].decode("ascii")[9:]))) == mail["subject"]
    assert mail["from"] == '"RCP Oncologie - CH Exemple" <rcp-onco@ch-exemple.mssante.example>' or (
        mail["from"] == "RCP Oncologie - CH Exemple <rcp-onco@ch-exemple.mssante.example>"
    )
    assert mail["to"] == "Docteur Camille LAFONT <camille.lafont@medecin.mssante.example>"
    assert mail["reply-to"] == "secretariat-rcp@ch-exemple.mssante.example"
    assert mail["date"] == "Tue, 24 Nov 2026 07:00:00 +0000"
    assert mail["message-id"] == f"<{sealed.message_id}>"
    assert sealed.message_id.endswith("@ch-exemple.mssante.example")
    assert mail["disposition-notification-to"] == "<rcp-onco@ch-exemple.mssante.example>"
    assert mail["auto-submitted"] == "auto-generated"
    assert mail["x-mss-nil"] == "123456"
    for absent in ("x-mss-codecda", "x-mss-ins", "x-mss-mes", "cc", "bcc", "sender"):
        assert mail[absent] is None
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content_charset() == "utf-8"
    assert mail.get_content().replace("\r\n", "\n") == PLAIN.body


def test_only_seven_bit_lines_of_legal_length_leave():
    for mail in (PLAIN, DOCUMENT):
        content = render(mail).content
        assert content.isascii()
        assert b"\n" not in content.replace(b"\r\n", b"")
        assert max(map(len, content.split(b"\r\n"))) <= 998


def test_the_identifier_stands_on_the_line_of_its_name():
    line = f"Message-ID: <{render(PLAIN).message_id}>\r\n".encode()
    assert render(PLAIN).content.startswith(line)


def test_the_mail_of_a_document():
    mail = parsed(DOCUMENT)
    assert raw_header(DOCUMENT, "Subject")[0].startswith(b"Subject: XDM/1.0/DDM+")
    assert mail["subject"] == DOCUMENT.subject
    assert (mail["x-mss-codecda"], mail["x-mss-ins"], mail["auto-submitted"]) == ("34794-8", "O", None)
    body, archive, pdf = mail.iter_parts()
    assert body.get_content().replace("\r\n", "\n") == PLAIN.body
    assert (archive.get_filename(), archive.get_content_type()) == ("IHE_XDM.zip", "application/zip")
    assert archive.get_content() == ZIP.content
    assert archive["content-transfer-encoding"] == "base64"
    assert (pdf.get_filename(), pdf.get_content_type()) == (PDF.filename, "application/pdf")
    assert pdf.get_content() == PDF.content
    assert mail["content-type"].startswith("multipart/mixed")
    assert parsed(replace(DOCUMENT, ins_qualified=False))["x-mss-ins"] == "N"


def test_the_same_mail_gives_the_same_bytes_and_each_key_its_own_names():
    for mail in (PLAIN, DOCUMENT):
        sealed = render(mail)
        assert render(mail) == sealed
        assert sealed.sha256 == hashlib.sha256(sealed.content).hexdigest()
        other = render(replace(mail, key=mail.key + "2"))
        assert (other.message_id, other.envelope_id) != (sealed.message_id, sealed.envelope_id)
    assert "810001234567" not in render(PLAIN).message_id


def test_an_answer_names_what_it_answers():
    mail = parsed(replace(PLAIN, in_reply_to="a@b.example", references=("c@d.example", "a@b.example")))
    assert mail["in-reply-to"] == "<a@b.example>"
    assert mail["references"] == "<c@d.example> <a@b.example>"


def test_the_mail_to_a_patient_who_may_not_answer():
    patient = replace(PLAIN, recipient_address="279035121518989@patient.mssante.fr", patient_may_not_reply=True)
    assert parsed(patient)["x-mss-mes"] == "FIN"
    assert parsed(replace(patient, patient_may_not_reply=False))["x-mss-mes"] is None
    with pytest.raises(InvalidContent, match="mail-patient"):
        render(replace(PLAIN, patient_may_not_reply=True))


@pytest.mark.parametrize(
    ("by_domain", "limit"),
    [
        ({}, 25_000_000),
        ({"patient.mssante.fr": 90_000_000}, 25_000_000),
        ({"patient.mssante.fr": 5_000_000}, 5_000_000),
        ({"autre.mssante.fr": 1}, 25_000_000),
    ],
)
def test_a_patient_s_mailbox_takes_what_mon_espace_sante_takes(by_domain, limit):
    """25 MB of the whole message, else it bounces (mssante.md 1.5); other mailboxes as set."""
    assert Sizes(10_000_000, by_domain).of("279035121518989@PATIENT.mssante.fr") == limit
    assert Sizes(10_000_000, by_domain).of("dr@medecin.mssante.fr") == 10_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": "a\r\nBcc: x@y.example"},
        {"subject": "a\nb"},
        {"sender_name": "RCP\r\nX: y"},
        {"recipient_name": "a\x00b"},
        {"recipient_name": "a\u2028b"},
        {"nil": "1\r\nX: y"},
        {"in_reply_to": "a@b>\r\nX: y"},
        {"references": ("pas un identifiant",)},
        {"subject": "XDM/1.0/DDM+sans document"},
        {"cda_codes": ("34794-8",)},
        {"ins_qualified": True},
        {"date": datetime(2026, 1, 1)},
        {"attachments": (Attachment("a\r\nX: y.pdf", "application/pdf", b""),)},
        {"attachments": (ZIP,)},
    ],
)
def test_what_may_not_be_in_a_mail_is_refused(wrong):
    with pytest.raises(InvalidContent):
        render(replace(PLAIN, **wrong))


@pytest.mark.parametrize(
    "address",
    ["", "a", "a@b", "a b@c.example", "Nom <a@b.example>", "a@b.example\r\n", "é@b.example", "a@é.example",
     "a@@b.example", "a@b.example,c@d.example", "a" * 250 + "@b.example", ".a@b.example", "a@-b.example"],
)  # fmt: skip
def test_an_address_that_smtp_cannot_carry_is_refused(address):
    with pytest.raises(InvalidContent):
        check_address(address)
    with pytest.raises(InvalidContent):
        render(replace(PLAIN, recipient_address=address))


def test_an_address_outside_mssante_fr_is_an_address():
    assert check_address("cabinet.d'exemple+rcp@medical.apicrypt.example")


def test_the_limit_counts_the_encoded_message_and_is_named():
    size = len(render(DOCUMENT).content)
    assert render(DOCUMENT, max_bytes=size).content
    with pytest.raises(InvalidContent, match=str(size - 1)) as refused:
        render(DOCUMENT, max_bytes=size - 1)
    assert refused.value.code == "mail-too-large"


def test_an_operator_s_domain_has_a_limit_of_its_own():
    sizes = Sizes(20_000, {"patient.mssante.fr": 2_000_000})
    composer = Composer(address="rcp@ch-exemple.mssante.example", nil="1", sizes=sizes)

    def letter(address):
        return Letter(
            kind="M7",
            key="k",
            at=datetime(2026, 11, 24, tzinfo=UTC),
            address=address,
            name="",
            subject="Essai",
            body="long " * 8000,
        )

    for address in ("a@medecin.mssante.example", "b@sous.patient.mssante.fr"):
        with pytest.raises(InvalidContent, match=r"pour 20000 \(RCP_MSSANTE_MAX_BYTES\)"):
            composer.seal(letter(address))
    assert composer.seal(letter("180032158745233@PATIENT.mssante.fr")).content


@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        (
            ("CR de réunion de concertation pluridisciplinaire", "Pat-Trois", "Dominique", date(1979, 3, 28)),
            "XDM/1.0/DDM+CR de réunion de concertation pluridisci PAT-TROIS DOMINIQUE 28/03/1979",
        ),
        (("Compte rendu", "D'Étoile-Œuvre", "Éloïse", None), "XDM/1.0/DDM+Compte rendu D'ETOILE-OEUVRE ELOISE"),
        (("Compte rendu", None, None, None), "XDM/1.0/DDM+Compte rendu"),
    ],
)
def test_the_national_subject(arguments, subject):
    label, name, first, born = arguments
    assert document_subject(label, birth_name=name, first_name=first, birth_date=born) == subject


def test_the_name_of_the_readable_copy():
    label = "CR de réunion de concertation pluridisciplinaire"
    assert pdf_filename(date(2026, 11, 26), label, "PAT-TROIS", "DOMINIQUE") == (
        "20261126_CR de réunion de concertation pluridisci_PAT-TROIS_DOMINIQUE.pdf"
    )
    name = pdf_filename(date(2026, 11, 26), 'A/B\\C:"D', "X/Y", "Z", "12")
    assert name == "20261126_A-B-C-D_X-Y_Z_12.pdf"


NAMES = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp", "Cn", "Co"]), max_size=60).map(
    lambda text: " ".join(text.split())
)


@given(NAMES, NAMES)
def test_any_display_name_leaves_one_recipient(sender, recipient):
    """A name that folds badly would add an address or hide one."""
    mail = parsed(replace(PLAIN, sender_name=sender, recipient_name=recipient))
    assert [one.addr_spec for one in mail["to"].addresses] == [PLAIN.recipient_address]
    assert [one.addr_spec for one in mail["from"].addresses] == [PLAIN.sender_address]


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp", "Cn", "Co"]), min_size=1, max_size=150))
def test_any_subject_comes_back(text):
    import unicodedata

    subject = " ".join(unicodedata.normalize("NFC", text).split())
    if not subject or subject.startswith("XDM/1.0/DDM+"):
        return
    raw = raw_header(replace(PLAIN, subject=subject), "Subject")[0].decode("ascii").removeprefix("Subject: ")
    assert "".join(str(make_header(decode_header(raw))).split()) == "".join(subject.split())
