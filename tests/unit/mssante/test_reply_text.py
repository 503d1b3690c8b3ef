"""Replies as mail programs write them; the text that the physician wrote himself is what is left."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mssante import parts
from gateway.mssante.reply_text import new_text, whole_text

OWN = "Patiente fatiguée, vit seule.\n\nMerci de me joindre."
ORIGINAL = "Le dossier de PAT-TROIS DOMINIQUE sera examiné.\nRéférence : RCP-7K3Q-29"
QUOTED = "\n".join(f"> {line}" for line in ORIGINAL.splitlines())


def read(mail, function=new_text):
    message = email.message_from_bytes(mail, policy=email.policy.compat32)
    return function(parts.walk(message))


def plain(text, charset="utf-8"):
    made = EmailMessage(policy=email.policy.SMTP)
    made.set_content(text, charset=charset, cte="quoted-printable")
    return made.as_bytes()


def html(text, *, beside=None):
    made = EmailMessage(policy=email.policy.SMTP)
    if beside is not None:
        made.set_content(beside)
        made.add_alternative(text, subtype="html")
    else:
        made.set_content(text, subtype="html")
    return made.as_bytes()


PROGRAMS = {
    "nothing quoted": OWN,
    "Thunderbird": f"{OWN}\n\nLe 17/03/2026 à 08:00, RCP Sein a écrit :\n{QUOTED}",
    "Gmail, folded": f"{OWN}\n\nLe mar. 17 mars 2026 à 08:00, RCP Sein <rcp@x.fr> a\nécrit :\n\n{QUOTED}",
    "in English": f"{OWN}\n\nOn Tue, Mar 17, 2026 at 8:00 AM RCP Sein <rcp@x.fr> wrote:\n{QUOTED}",
    "unmarked quotation": f"{OWN}\n\nLe 17/03/2026 à 08:00, RCP Sein a écrit :\n\n{ORIGINAL}",
    "Outlook": f"{OWN}\n\n-----Message d'origine-----\nDe : RCP\nEnvoyé : mardi\nÀ : Paul\nObjet : RCP\n\n{ORIGINAL}",
    "Outlook, ruled": f"{OWN}\n________________________________\nDe : RCP\nEnvoyé : mardi\nObjet : x\n\n{ORIGINAL}",
    "Outlook, bare": f"{OWN}\n\nDe : RCP Sein <rcp@x.fr>\nEnvoyé : mardi\nÀ : Paul\nObjet : RCP\n\n{ORIGINAL}",
    "Apple": f"{OWN}\n\nEnvoyé de mon iPhone\n\n> Le 17 mars 2026 à 08:00, RCP Sein a écrit :\n> \n{QUOTED}",
    "signature": f"{OWN}\n\n-- \nDr Paul DURANT\n12 rue des Tilleuls",
    "signature, then the original": f"{OWN}\n-- \nDr Paul DURANT\n\nLe 17/03/2026, RCP a écrit :\n{QUOTED}",
    "the quotation first": f"Le 17/03/2026 à 08:00, RCP Sein a écrit :\n{QUOTED}\n\n{OWN}",
    "old line ends": OWN.replace("\n", "\r\n") + f"\r\n\r\nLe 17/03/2026, RCP a écrit :\r\n{QUOTED}",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_only_the_new_text_is_left(program):
    assert read(plain(PROGRAMS[program])).replace("\r\n", "\n") == OWN


def test_answers_between_the_lines_are_kept():
    text = "Le 17/03/2026, RCP a écrit :\n> Vit-elle seule ?\nOui.\n> Fatiguée ?\nBeaucoup.\n"
    assert read(plain(text)) == "Oui.\nBeaucoup."


@pytest.mark.parametrize(
    "line", ["Le dosage : 5 mg.", "De retour au domicile.", "Le patient a écrit une lettre.", "À revoir : la posologie"]
)
def test_a_line_that_looks_like_a_head_is_kept(line):
    assert read(plain(f"Bonjour,\n{line}\nMerci.")) == f"Bonjour,\n{line}\nMerci."


HTML = {
    "Gmail": '<div dir="ltr">Fatiguée &amp; seule.<br>Merci.</div><div class="gmail_quote">Le 17 mars, RCP a écrit :'
    "<blockquote>Le dossier de PAT-TROIS</blockquote></div>",
    "Outlook": '<p>Fatiguée &amp; seule.</p><p>Merci.</p><hr><div id="divRplyFwdMsg"><b>De :</b> RCP</div>'
    "<div>Le dossier de PAT-TROIS</div>",
    "Thunderbird": '<p>Fatiguée &amp; seule.</p><p>Merci.</p><div class="moz-cite-prefix">Le 17, RCP a écrit :</div>'
    "<blockquote><p>PAT-TROIS</p><blockquote>x</blockquote>y</blockquote><div class='moz-signature'>-- <br>Dr</div>",
    "markup": "<style>p{color:red}</style><script>alert('x')</script><p>Fatiguée &amp; seule.</p>\n<p>Merci.</p>",
}


@pytest.mark.parametrize("program", HTML)
def test_html_alone_is_read_as_a_person_sees_it(program):
    lines = [line.strip() for line in read(html(HTML[program])).splitlines() if line.strip()]
    assert lines == ["Fatiguée & seule.", "Merci."]


def test_plain_text_is_preferred():
    assert read(html("<p>Autre</p>", beside="Ceci.")) == "Ceci."


def test_bytes_of_another_charset_are_read():
    assert read(b"Content-Type: text/plain; charset=inconnu\r\n\r\nFatigu\xe9e") == "Fatiguée"
    assert read(plain("Fatiguée", "iso-8859-15")) == "Fatiguée"


def test_a_forwarded_mail_and_a_file_are_no_text():
    made = EmailMessage(policy=email.policy.SMTP)
    made.set_content("")
    made.add_attachment("Un fichier.", filename="note.txt")
    inner = EmailMessage()
    inner.set_content("Le texte d'un autre.")
    made.add_attachment(inner)
    assert read(made.as_bytes()) == ""


def test_the_quotation_still_says_which_dossier_it_was():
    assert "RCP-7K3Q-29" in read(plain(PROGRAMS["Thunderbird"]), whole_text)
    assert "RCP-7K3Q-29" not in read(plain(PROGRAMS["Thunderbird"]))


@settings(max_examples=60)
@given(st.text(max_size=400), st.sampled_from(["plain", "html"]))
def test_any_text_is_read(text, subtype):
    content = f"Content-Type: text/{subtype}; charset=utf-8\r\n\r\n".encode() + text.encode("utf-8", "replace")
    assert "\0" not in text or read(content) is not None
    assert len(read(content)) <= len(text) + 400


@pytest.mark.parametrize(
    "evil",
    [
        "<div>" * 40_000,
        "Le " * 70_000,
        "-" * 200_000,
        "De : x\n" * 30_000,
        "<![" * 60_000,
        "<!--" * 50_000,
        "<a " * 60_000,
        "&" * 200_000,
        ("-" + " " * 998 + "x\n") * 200,
    ],
)
def test_hostile_text_is_read_without_getting_lost_in_it(evil):
    """Quadratic work on any of these would take longer than the whole suite may."""
    for make in (plain, html):
        assert isinstance(read(make(evil)), str)


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "zlib", "x-none", "undefined"])
def test_what_is_no_charset_of_a_mail_is_read_as_utf_8(charset):
    evil = f"Content-Type: text/plain; charset={charset}\r\n\r\né".encode() + b"a" * 90_000 + b"-" + b"9" * 90_000
    assert read(evil).startswith("éaaa")


def test_half_a_character_is_kept_by_nobody():
    mail = b"Content-Type: text/%s; charset=utf-7\r\n\r\nVit +2AA-seule."
    assert [read(mail % kind) for kind in (b"plain", b"html")] == ["Vit ?seule.", "Vit ?seule."]


def test_many_parts_are_no_more_than_one():
    part = b"--p\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + "é".encode() * 40_000 + b"\r\n"
    mail = b"Content-Type: multipart/mixed; boundary=p\r\n\r\n" + part * 150 + b"--p--"
    assert read(mail) == "\n".join(["é" * 40_000] * 2 + ["é" * 20_000] + [""] * 147).rstrip()
    odd = mail.replace(b"charset=utf-8\r\n\r\n", b"charset=utf-8\r\n\r\na", 1)
    assert "Ã" not in read(odd), "cut within a character, and still UTF-8"
