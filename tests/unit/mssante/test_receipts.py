"""Receipts in the forms that operators and establishments send them (mssante.md 5.4 to 5.6, 7.3, 7.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mssante.receipts import Kind, Receipt, read
from gateway.mssante.translate import RECEIPT_KINDS

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

OURS = "20261126.1042.1.r01@passerelle.ch-exemple.mssante.example"


def dsn(*blocks, third="headers", envid="20261126.1042.1.r01", eol="\r\n"):
    head = """\
From: MAILER-DAEMON@mx.operateur.example
To: rcp-onco@ch-exemple.mssante.example
Date: Thu, 26 Nov 2026 22:31:12 +0100
Message-ID: <dsn-7f3a@mx.operateur.example>
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b-dsn-1"

--b-dsn-1
Content-Type: text/plain; charset=utf-8

The message could not be delivered to one recipient.

--b-dsn-1
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.operateur.example
"""
    if envid:
        head += f"Original-Envelope-Id: {envid}\n"
    head += "Arrival-Date: Thu, 26 Nov 2026 18:30:08 +0100\n\n" + "\n".join(blocks)
    if third == "headers":
        head += f"\n--b-dsn-1\nContent-Type: text/rfc822-headers\n\nMessage-ID: <{OURS}>\nSubject: XDM/1.0/DDM+X\n"
    elif third == "message":
        head += f"\n--b-dsn-1\nContent-Type: message/rfc822\n\nMessage-ID: <{OURS}>\nSubject: x\n\ntexte\n"
    return (head + "\n--b-dsn-1--\n").replace("\n", eol).encode()


FAILED = """\
Original-Recipient: rfc822;camille.lafont@medecin.mssante.example
Final-Recipient: rfc822;autre@medecin.mssante.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.medecin.mssante.example
Diagnostic-Code: smtp; 550 5.1.1 unknown user
"""


@pytest.mark.parametrize("eol", ["\r\n", "\n"])
@pytest.mark.parametrize("third", ["headers", "message"])
def test_a_failure(third, eol):
    found = read(dsn(FAILED, third=third, eol=eol))
    assert found.kind is Kind.DELIVERY_REPORT
    assert found.automatic is True
    assert found.receipts == (
        Receipt("failed", OURS, "20261126.1042.1.r01", "camille.lafont@medecin.mssante.example", "5.1.1", "550"),
    )


@pytest.mark.parametrize("action", ["delivered", "delayed", "relayed", "expanded", "failed"])
def test_every_action_is_understood_and_kept_under_a_kind(action):
    block = f"Final-Recipient: RFC822; <A@B.example>\nAction: {action.upper()}\nStatus: 2.0.0 (ok)\n"
    [receipt] = read(dsn(block)).receipts
    assert (receipt.state, receipt.recipient, receipt.status) == (action, "a@b.example", "2.0.0")
    assert receipt.state in RECEIPT_KINDS


def test_two_recipients_in_one_report():
    delivered = "Final-Recipient: rfc822;b@c.example\nAction: delivered\nStatus: 2.1.5\n"
    found = read(dsn(FAILED, delivered))
    assert [(one.state, one.recipient) for one in found.receipts] == [
        ("failed", "camille.lafont@medecin.mssante.example"),
        ("delivered", "b@c.example"),
    ]


def test_a_report_without_third_part_is_known_by_its_envelope():
    [receipt] = read(dsn(FAILED, third=None)).receipts
    assert (receipt.message_id, receipt.envelope_id) == (None, "20261126.1042.1.r01")


def test_an_envelope_id_is_decoded_from_xtext():
    [receipt] = read(dsn(FAILED, envid="a+2Bb+3Dc")).receipts
    assert receipt.envelope_id == "a+b=c"


def test_a_report_without_blocks_is_for_a_person():
    found = read(dsn())
    assert (found.kind, found.reason, found.receipts) == (Kind.HUMAN, "report-unreadable", ())


def mdn(disposition, *, extra="", subject="XDM/1.0/DDM+CR", original=f"Original-Message-ID: <{OURS}>\n", first="Lu."):
    return f"""\
From: dpi@clinique.mssante.example
To: rcp-onco@ch-exemple.mssante.example
Date: Thu, 26 Nov 2026 18:41:30 +0100
Message-ID: <mdn-0042@clinique.mssante.example>
In-Reply-To: <{OURS}>
Subject: {subject}
MIME-Version: 1.0
Content-Type: multipart/report; report-type=disposition-notification; boundary="b-mdn-1"

--b-mdn-1
Content-Type: text/plain; charset=utf-8

{first}

--b-mdn-1
Content-Type: message/disposition-notification

Reporting-UA: DPI-Exemple; Passerelle 1.0
Original-Recipient: rfc822;dpi@clinique.mssante.example
Final-Recipient: rfc822;dpi@clinique.mssante.example
{original}Disposition: {disposition}
{extra}
--b-mdn-1
Content-Type: message/rfc822

Message-ID: <{OURS}>
Subject: XDM/1.0/DDM+...

(original)

--b-mdn-1--
""".replace("\n", "\r\n").encode()


@pytest.mark.parametrize(
    ("disposition", "more", "state", "code"),
    [
        ("manual-action/MDN-sent-manually; displayed", {}, "displayed", None),
        ("automatic-action/MDN-sent-automatically; processed", {}, "processed", None),
        ("automatic-action/MDN-sent-automatically; dispatched", {}, "dispatched", None),
        ("manual-action/MDN-sent-automatically; deleted", {}, "deleted", None),
        ("automatic-action/MDN-sent-automatically; processed/Error: 902^Patient inconnu", {}, "error", "902"),
        (
            "automatic-action/MDN-sent-automatically; processed/error",
            {"extra": "Error: 903^x^applicationErrorCondition\n"},
            "error",
            "903",
        ),
        (
            "automatic-action/MDN-sent-automatically; processed/error",
            {"subject": "[KO Int=?utf-8?q?=C3=A9?=gration syst=?utf-8?q?=C3=A8me_!=5D?=[904] XDM/1.0/DDM+X"},
            "error",
            "904",
        ),
        (
            "automatic-action/MDN-sent-automatically; processed/error",
            {"first": "Document non intégré : 905 Traits incomplets."},
            "error",
            "905",
        ),
    ],
)  # fmt: skip
def test_a_read_receipt(disposition, more, state, code):
    found = read(mdn(disposition, **more))
    assert found.kind is Kind.READ_RECEIPT
    [receipt] = found.receipts
    assert (receipt.state, receipt.message_id, receipt.code) == (state, OURS, code)
    assert receipt.recipient == "dpi@clinique.mssante.example"
    assert receipt.state in RECEIPT_KINDS


def test_a_receipt_without_original_message_id_is_known_by_what_it_answers():
    [receipt] = read(mdn("manual-action/MDN-sent-manually; displayed", original="")).receipts
    assert receipt.message_id == OURS


def test_a_receipt_inside_a_forwarded_mail_is_none():
    inner = mdn("manual-action/MDN-sent-manually; displayed").decode()
    forwarded = (
        "From: b@c.example\r\nSubject: Tr\r\nContent-Type: multipart/mixed; boundary=f\r\n\r\n--f\r\n"
        f"Content-Type: message/rfc822\r\n\r\n{inner}\r\n--f--\r\n"
    )
    found = read(forwarded.encode())
    assert (found.kind, found.receipts) == (Kind.HUMAN, ())


@pytest.mark.parametrize(
    ("mail", "kind", "automatic"),
    [
        ("Return-Path: <>\nFrom: MAILER-DAEMON@x.example\nSubject: failure\n\nperdu\n", Kind.BOUNCE, True),
        ("From: a@b.example\nSubject: [KO Intégration système !][901] XDM\n\nx\n", Kind.INTEGRATION_ERROR, False),
        (f"From: a@b.example\nAuto-Submitted: auto-replied\nIn-Reply-To: <{OURS}>\n\nabsent\n", Kind.AUTOMATIC, True),
        (f"From: Paul <A@b.example>\nIn-Reply-To: <{OURS}>\nSubject: Re\n\nmerci\n", Kind.REPLY, False),
        ("From: a@b.example\nSubject: bonjour\n\nx\n", Kind.HUMAN, False),
        ("\n", Kind.HUMAN, False),
        ("", Kind.HUMAN, False),
    ],
)
def test_what_else_comes(mail, kind, automatic):
    found = read(mail.encode())
    assert (found.kind, found.automatic) == (kind, automatic)


def test_a_forwarded_document_is_found_however_deep():
    part = b'Content-Type: application/zip; name="ihe_xdm.ZIP"\r\nContent-Disposition: attachment\r\n\r\nPK\r\n'
    mail = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n" + part + b"--a--\r\n"
    for mark in (b"b", b"c"):
        head = b"Content-Type: multipart/mixed; boundary=" + mark + b"\r\n\r\n--" + mark
        mail = head + b"\r\nContent-Type: message/rfc822\r\n\r\n" + mail + b"\r\n--" + mark + b"--\r\n"
    assert read(b"From: a@b.example\r\n" + mail).kind is Kind.DOCUMENT


def test_limits_send_a_mail_to_a_person():
    huge = b"X: " + b"a" * (512 * 1024) + b"\r\n\r\nx"
    assert read(huge).reason == "header-too-large"
    many = b"X: " + b"a" * 1000 + b"\r\n"
    inner = b"Content-Type: multipart/mixed; boundary=p\r\n\r\n--p\r\n" + many * 600 + b"\r\nx\r\n--p--\r\n"
    assert read(inner).reason == "header-too-large"
    assert read(b"From: a@b.example\r\n\r\n" + b"a\r\n" * 1_000_001).reason == "too-many-lines"
    parts = b"--p\r\n\r\nx\r\n" * 1000
    assert read(b"Content-Type: multipart/mixed; boundary=p\r\n\r\n" + parts + b"--p--\r\n").reason == "too-many-parts"
    nested = b"x"
    for level in range(50):
        mark = b"n%d" % level
        nested = b"Content-Type: multipart/mixed; boundary=" + mark + b"\r\n\r\n--" + mark + b"\r\n" + nested
    assert read(nested).reason in {"too-deep", "unreadable"}


@pytest.mark.parametrize(
    "field",
    [
        b"From: " + b"(" * 200_000,
        b"From: " + b"a" * 100_000,
        b"Subject: =?punycode?q?" + b"a" * 100_000 + b"-" + b"9" * 100_000 + b"?=",
        b'Content-Type: text/plain; name="' + b";" * 200_000,
        b'Content-Type: multipart/mixed; x="' + b";" * 200_000,
        b"Content-Type: multipart/mixed; boundary=p\r\n\r\n--p\r\n" + b'Content-Disposition: a; b="' + b";" * 200_000,
    ],
)
def test_a_field_whose_reading_takes_the_square_of_its_length_is_not_read(field):
    assert read(field + b"\r\n\r\nx").reason == "header-too-large"


def test_many_parts_within_parts_are_not_parsed_line_by_line():
    open_parts = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(300))
    assert read(open_parts + b"\r\n" + b"a\r\n" * 900_000).reason == "too-deep"


def test_a_word_that_cannot_be_decoded_is_read_as_it_is_written():
    found = read(b"From: =?utf-8?B?a?= <A@b.example>\r\nIn-Reply-To: <x@y>\r\nSubject: =?utf-8?B?a?=\r\n\r\nx")
    assert (found.kind, found.sender, found.subject) == (Kind.REPLY, "a@b.example", "=?utf-8?B?a?=")


def test_half_a_character_reaches_no_text():
    found = read(b"From: =?utf-7?q?a+2AA-b=40c.example?=\r\nSubject: =?unicode_escape?q?=5Cud800x?=\r\n\r\nx")
    assert (found.sender, found.subject) == ("ab@c.example", "x")


def test_what_is_too_long_to_be_an_identifier_or_an_address_is_none():
    long = b"a" * 990
    found = read(
        b"From: " + long + b"@b.example\r\nMessage-ID: <" + long + b"@b.example>\r\nIn-Reply-To: <x@y>\r\n\r\nx"
    )
    assert (found.sender, found.message_id, found.answers) == (None, None, ("x@y",))


SOUP = st.lists(
    st.sampled_from(
        [
            b"Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n",
            b"Content-Type: multipart/report; report-type=disposition-notification; boundary=x\r\n",
            b"Content-Type: message/disposition-notification\r\n\r\n",
            b"Content-Type: message/delivery-status\r\n\r\n",
            b"Content-Type: message/rfc822\r\n\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"Subject: =?utf-8?q?=C3?=\r\n",
            b"Subject: =?x-unknown?b?!!?=\r\n",
            b"From: <\xff\xfe@>\r\n",
            b"Message-ID: <<>>\r\n",
            b"Disposition: ;/\r\n",
            b"Action: failed\r\nFinal-Recipient: ;\r\n",
            b"\r\n--x\r\n",
            b"\r\n",
            b"--x--",
        ]
    )
    | st.binary(max_size=20),
    max_size=14,
).map(b"".join)


@given(SOUP)
def test_any_bytes_get_an_answer(content):
    found = read(content)
    assert found.kind in Kind
    if found.kind in {Kind.DELIVERY_REPORT, Kind.READ_RECEIPT}:
        assert found.receipts
        assert all(one.state in RECEIPT_KINDS for one in found.receipts)
