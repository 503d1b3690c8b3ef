"""What goes back for a document: to whom, and in which words [RFC 8098; spec mssante 5.5, 5.8]."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime

import pytest

from gateway.mssante import mdn, receipts
from gateway.mssante.mdn import Answering

OWN = "rcp@3c.mssante.fr"
SENDER = "dpi@clinique-exemple.mssante.fr"
AT = datetime(2026, 11, 26, 17, 41, 30, tzinfo=UTC)
ANSWERING = Answering(OWN, "000000", "RCP Sein")
HEADS = {
    "Return-Path": f"<{SENDER}>",
    "From": f"Clinique <{SENDER}>",
    "To": OWN,
    "Message-ID": "<0042@clinique-exemple.mssante.fr>",
    "Subject": "XDM/1.0/DDM+CR de =?utf-8?q?r=C3=A9union?= PAT-TROIS DOMINIQUE 28/03/1979",
    "Disposition-Notification-To": f"<{SENDER}>",
    "MIME-Version": "1.0",
    "Content-Type": 'application/zip; name="IHE_XDM.zip"',
    "Content-Transfer-Encoding": "base64",
}


def mail(*more: str, body: bytes = b"UEsDBA==\r\n", **changed: str | None) -> bytes:
    named = {name.replace("_", "-"): value for name, value in changed.items()}
    heads = [f"{name}: {value}" for name, value in (HEADS | named).items() if value is not None]
    return "\r\n".join([*heads, *more]).encode() + b"\r\n\r\n" + body


def asked(content: bytes) -> mdn.Request | None:
    return mdn.request(content, receipts.read(content), own=OWN)


def test_who_asks_at_the_address_that_sent_is_answered() -> None:
    found = asked(mail())
    assert found is not None
    assert (found.address, found.message_id) == (SENDER, "0042@clinique-exemple.mssante.fr")
    assert found.subject == "XDM/1.0/DDM+CR de réunion PAT-TROIS DOMINIQUE 28/03/1979"
    for answered in (mail(Auto_Submitted="auto-generated"), mail(Return_Path=f"<{SENDER.upper()}>")):
        assert asked(answered) is not None


def test_an_identifier_that_fits_into_no_line_is_not_repeated() -> None:
    found = asked(mail(Message_ID=f"<{'a' * 960}@clinique-exemple.mssante.fr>"))
    assert found is not None
    made = Answering(OWN, "000000").seal(found, None, key="MDN|1", at=datetime(2026, 3, 1, tzinfo=UTC)).content
    answered = made.partition(b"message/rfc822")[0]
    assert max(map(len, answered.split(b"\r\n"))) <= 998
    assert b"In-Reply-To" not in answered


@pytest.mark.parametrize(
    "content",
    [
        mail(Disposition_Notification_To=None),
        mail(Disposition_Notification_To="autre@clinique-exemple.mssante.fr"),  # S06
        mail(Disposition_Notification_To=f"{SENDER}, autre@clinique-exemple.mssante.fr"),
        mail(f"Disposition-Notification-To: <{SENDER}>"),
        mail(Disposition_Notification_To="Clinique"),
        mail(Return_Path=None),
        mail(Return_Path="<>"),
        mail(Return_Path="<autre@clinique-exemple.mssante.fr>"),
        mail("Return-Path: <autre@clinique-exemple.mssante.fr>"),
        mail(From="autre@clinique-exemple.mssante.fr"),
        mail(From=f"{SENDER}, autre@clinique-exemple.mssante.fr"),
        mail("Disposition-Notification-Options: x=required,y"),
        mail(Auto_Submitted="auto-replied"),
        mail(Auto_Submitted="auto-notified"),
        mail("List-Id: <liste.mssante.fr>"),
        mail("Precedence: bulk"),
        mail(From=OWN, Return_Path=f"<{OWN}>", Disposition_Notification_To=OWN),
        mail(Content_Type="text/plain"),  # no document
        mail(Subject="[KO Intégration système !][902] XDM/1.0/DDM+x"),  # class 4
        b'Content-Type: multipart/mixed; boundary="b"\r\n' + b"x" * 300_000,
    ],
)
def test_nobody_else_is(content: bytes) -> None:
    assert asked(content) is None


def told(reason: str | None, content: bytes | None = None) -> tuple[email.message.EmailMessage, bytes]:
    found = asked(content or mail())
    assert found is not None
    sealed = ANSWERING.seal(found, reason, key="MDN|1", at=AT)
    assert sealed == ANSWERING.seal(found, reason, key="MDN|1", at=AT)
    assert sealed.content.isascii()
    assert b"\n" not in sealed.content.replace(b"\r\n", b"")
    parsed = email.message_from_bytes(sealed.content, policy=email.policy.default)
    assert not parsed.defects
    return parsed, sealed.content


def test_what_was_integrated_is_told_as_the_specification_says() -> None:
    said, content = told(None)
    assert (said.get_content_type(), said.get_param("report-type")) == (
        "multipart/report",
        "disposition-notification",
    )
    assert (said["To"], said["From"].addresses[0].addr_spec, said["X-MSS-NIL"]) == (SENDER, OWN, "000000")
    assert said["Subject"] == "XDM/1.0/DDM+CR de réunion PAT-TROIS DOMINIQUE 28/03/1979"
    assert b"\r\nSubject: XDM/1.0/DDM+" in content
    assert (said["Auto-Submitted"], said["Disposition-Notification-To"]) == ("auto-replied", None)
    assert said["In-Reply-To"] == "<0042@clinique-exemple.mssante.fr>"
    text, report, original = said.iter_parts()
    assert text.get_content().strip() == "Document intégré."
    [fields] = report.get_payload()
    assert dict(fields.items()) == {
        "Reporting-UA": "3c.mssante.fr; rcp-gateway",
        "Original-Recipient": f"rfc822;{OWN}",
        "Final-Recipient": f"rfc822;{OWN}",
        "Original-Message-ID": "<0042@clinique-exemple.mssante.fr>",
        "Disposition": "automatic-action/MDN-sent-automatically; processed",
    }
    assert original.get_content_type() == "message/rfc822"
    assert mail() in content


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("version-perimee", "900"),
        ("auteur-non-autorise", "901"),
        ("document-patient-inconnu", "902"),
        ("traits-differents", "904"),
        ("ins-cle", "904"),
        ("traits-absents", "905"),
        ("xdm-empreinte", "906"),
        ("zip-bombe", "906"),
    ],
)
def test_what_was_not_says_its_code_thrice(reason: str, code: str) -> None:
    said, content = told(reason)
    assert said["Subject"].startswith(f"[KO Intégration système !][{code}] XDM/1.0/DDM+")
    text, report, _ = said.iter_parts()
    assert text.get_content().startswith(f"Document non intégré\u00a0: {code} ")
    [fields] = report.get_payload()
    assert fields["Disposition"] == "automatic-action/MDN-sent-automatically; processed/error"
    assert fields["Error"].startswith(f"{code}^")
    assert fields["Error"].endswith("^applicationErrorCondition")
    # Whoever reads it as we read those of others knows which of his mails it is, and what became of it.
    found = receipts.read(b"Return-Path: <>\r\n" + content)
    assert found.kind is receipts.Kind.READ_RECEIPT
    [one] = found.receipts
    assert (one.state, one.code, one.message_id) == ("error", code, "0042@clinique-exemple.mssante.fr")
    assert mdn.request(content, found, own=SENDER) is None  # nothing answers it


@pytest.mark.parametrize(
    "content",
    [
        mail("X-Texte: é"),
        mail("X-Long: " + "a" * 1000),
        mail(body=b"UEsDBA==\n"),
        mail(body=b"UEsDBA==\r"),
        mail(body=b"UEsD\x00BA==\r\n"),
        mail(body=b"A" * 76 + b"\r\n" + (b"A" * 76 + b"\r\n") * 70_000),
    ],
    ids=["8-bit", "long-line", "bare-lf", "bare-cr", "nul", "large"],
)
def test_a_mail_that_cannot_go_back_as_it_is_goes_back_as_its_header(content: bytes) -> None:
    said, _ = told(None, content)
    original = list(said.iter_parts())[2]
    assert original.get_content_type() == "text/rfc822-headers"
    assert b"Message-ID: <0042@clinique-exemple.mssante.fr>" in original.get_payload(decode=True)


def test_a_subject_and_an_identifier_never_become_a_header() -> None:
    hostile = mail(Subject="=?utf-8?q?x=0D=0ABcc=3A_y=40z.fr?=", Message_ID="<é@z.fr>")
    said, content = told(None, hostile)
    assert said["Bcc"] is None
    assert b"\r\nBcc:" not in content.partition(b"\r\n\r\n")[0]
    assert said["In-Reply-To"] is None
