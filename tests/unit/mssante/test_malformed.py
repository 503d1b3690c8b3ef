"""Every malformed input of the specification that an archive can be, by its number, with the reason that is told.

[spec mssante 7.4; X17, X18, X33, X35 and X37 are told by the intake: `test_intake_documents`, `test_intake`; X21 to X24
are reports and whole mails: `test_receipts`; X25 to X31 are HL7 v2]
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from gateway.errors import InvalidContent
from gateway.mssante import receipts, xdm_reader
from gateway.mssante.receipts import Kind
from tests import xdm_samples as samples
from tests.xdm_samples import METADATA, valid, with_document, with_metadata, zipped

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

INS = "279035121518989^^^&amp;1.2.250.1.213.1.4.10&amp;ISO^NH"
EXPANDS = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]>'
FETCHES = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
INCLUDES = b'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/>'


def with_prolog(data, doctype):
    end = data.index(b"?>") + 2
    return data[:end] + doctype + data[end:]


def in_metadata(doctype):
    files = valid()
    return zipped(files | {METADATA: with_prolog(files[METADATA], doctype)})


def in_document(change, method=zipfile.ZIP_DEFLATED):
    return zipped(with_document(valid(), change), method=method)


def within(tag, what):
    """Put something before the end of the document's root."""
    end = b"</ClinicalDocument>"
    return in_document(lambda data: data.replace(end, tag.replace(b"%", what) + end), zipfile.ZIP_STORED)


def linked():
    buffer = io.BytesIO(zipped(valid()))
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo("IHE_XDM/LINK")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def encrypted():
    made = bytearray(zipped(valid()))
    made[made.index(b"PK\x01\x02") + 8] |= 1
    return bytes(made)


def wrong_crc():
    made = bytearray(zipped(valid(), method=zipfile.ZIP_STORED))
    made[made.index(b"Emetteur")] ^= 1
    return bytes(made)


def false_size():
    made = bytearray(zipped(valid()))
    where = made.index(b"PK\x01\x02") + 24
    made[where : where + 4] = struct.pack("<L", struct.unpack_from("<L", made, where)[0] + 1)
    return bytes(made)


def latin_1(data):
    return data.decode().encode("iso-8859-1", "xmlcharrefreplace")


def without(name):
    return zipped({known: data for known, data in valid().items() if known != name})


CASES = {
    "X01 ratio": (lambda: zipped(valid() | {"IHE_XDM/BIG": bytes(60_000_000)}), "zip-bombe"),
    "X01 unpacked bytes": (
        lambda: zipped(valid() | {f"IHE_XDM/B{n}": bytes(range(256)) * 40_000 for n in range(6)}),
        "zip-bombe",
    ),
    "X01 entries": (lambda: zipped(valid() | {f"IHE_XDM/F{n}": b"" for n in range(101)}), "zip-bombe"),
    "X01 declared size": (false_size, "zip-bombe"),
    "X02 upwards": (lambda: zipped(valid() | {"../x": b""}), "zip-chemin"),
    "X02 root": (lambda: zipped(valid() | {"/abs": b""}), "zip-chemin"),
    "X02 drive": (lambda: zipped(valid() | {"C:\\x": b""}), "zip-chemin"),
    "X02 backslash": (lambda: zipped(valid() | {"IHE_XDM\\x": b""}), "zip-chemin"),
    "X02 link": (linked, "zip-chemin"),
    "X03 nested": (lambda: zipped({"IHE_XDM.zip": zipped(valid())}), "xdm-imbrique"),
    "X04 encrypted": (encrypted, "zip-chiffre"),
    "X04 truncated": (lambda: zipped(valid())[:-30], "zip-tronque"),
    "X04 wrong check": (wrong_crc, "zip-crc"),
    "X06 no metadata": (lambda: without(METADATA), "xdm-sans-metadata"),
    "X06 two metadata": (lambda: zipped(valid() | {"METADATA.XML": b"<x/>"}), "xdm-deux-metadata"),
    "X07 missing file": (lambda: without(samples.DOCUMENT), "xdm-fichier-absent"),
    "X07 URI upwards": (lambda: zipped(with_metadata(valid(), "DOC0001.XML", "../DOC0001.XML")), "xdm-chemin"),
    "X07 URI escaped": (lambda: zipped(with_metadata(valid(), "DOC0001.XML", "%2e%2e/DOC0001.XML")), "xdm-chemin"),
    "X07 URI elsewhere": (lambda: zipped(with_metadata(valid(), "DOC0001.XML", "file:///etc/passwd")), "xdm-chemin"),
    "X10 patient of the set": (
        lambda: zipped(
            valid() | {METADATA: INS.replace("27903", "18001").encode().join(valid()[METADATA].rsplit(INS.encode(), 1))}
        ),
        "xdm-patients",
    ),
    "X10 patient of the document": (
        lambda: zipped(with_metadata(valid(), INS, INS.replace("27903", "18001"), 2)),
        "xdm-patients",
    ),
    "X13 expansion in metadata": (lambda: in_metadata(EXPANDS), "xml-entites"),
    "X13 external in metadata": (lambda: in_metadata(FETCHES), "xml-entites"),
    "X13 expansion": (lambda: in_document(lambda data: with_prolog(data, EXPANDS)), "xml-entites"),
    "X13 external": (lambda: in_document(lambda data: with_prolog(data, FETCHES)), "xml-entites"),
    "X13 inclusion": (lambda: within(b"%", INCLUDES), "xml-entites"),
    "X13 huge text": (lambda: within(b"<text>%</text>", bytes(range(48, 58)) * 1_100_000), "xml-malforme"),
    "X13 depth": (lambda: within(b"%", b"<a>" * 300 + b"</a>" * 300), "xml-malforme"),
    "X14 unreadable": (lambda: zipped(with_metadata(valid(), INS, "279035121518989", 2)), "xdm-patient"),
    "X15 wrong bytes": (lambda: in_document(latin_1), "xml-malforme"),
    "X34 C without a document": (lambda: zipped(acting("C")), "xdm-action"),
    "X34 C and D": (lambda: zipped(acting("C", "D")), "xdm-action"),
    "X34 unknown": (lambda: zipped(acting("X")), "xdm-action"),
}


def acting(*actions):
    values = "".join(f"<rim:Value>{action}</rim:Value>" for action in actions)
    slot = f'<rim:Slot name="urn:action:extraMetadataSlot"><rim:ValueList>{values}</rim:ValueList></rim:Slot>'
    said = '<rim:Slot name="URI">'
    return with_metadata(valid(), said, slot + said)


@pytest.mark.parametrize("case", CASES)
def test_a_malformed_archive_is_refused_with_its_reason(case):
    make, expected = CASES[case]
    with pytest.raises(InvalidContent) as refused:
        xdm_reader.read(make())
    assert refused.value.code == expected
    for known in ("PAT-TROIS", "279035121518989", "passwd"):
        assert known not in refused.value.text


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_x15_a_mark_and_utf_16_are_read(codec):
    def recoded(data):
        declared, times = re.subn("(?<=encoding=.)UTF-8", codec[:6].rstrip("-"), data.decode(), count=1)
        assert times == 1
        return declared.encode(codec)

    [entry] = xdm_reader.read(in_document(recoded)).entries
    assert entry.header.birth_family == "PAT-TROIS"


def test_x16_a_document_of_another_kind_stays_what_its_sender_calls_it():
    files = with_document(valid(), lambda data: data.replace(b'code="34794-8"', b'code="51852-2"', 1))
    files = with_metadata(files, 'nodeRepresentation="34794-8"', 'nodeRepresentation="51852-2"')
    files = with_metadata(files, "urn:asip:ci-sis:frcp:2011", "urn:asip:ci-sis:frcp:2022")
    [entry] = xdm_reader.read(zipped(files)).entries
    assert (entry.header.type_code, entry.format_code) == ("51852-2", "urn:asip:ci-sis:frcp:2022")


def test_x36_an_identifier_with_an_extension_is_taken_from_a_mail():
    root = "1.2.250.1.999.77.1.20261126.1042.1"
    said = f'<id root="{root}"/>'.encode()
    files = with_document(valid(), lambda data: data.replace(said, said.replace(b"/>", b' extension="17"/>'), 1))
    files = with_metadata(files, f'value="{root}"', f'value="{root}^17"')
    [entry] = xdm_reader.read(zipped(files)).entries
    assert entry.header.unique_id == f"{root}^17"
    with pytest.raises(InvalidContent, match="xdm-identifiant"):
        xdm_reader.read(zipped(with_metadata(files, f'value="{root}^17"', f'value="{root}"')))


def mail(subject, **attached):
    made = EmailMessage(policy=SMTP)
    made["From"], made["To"], made["Subject"] = "dpi@clinique.mssante.fr", "rcp@3c.mssante.fr", subject
    made.set_content("Un document.")
    for name, content in attached.items():
        made.add_attachment(
            content, maintype="application", subtype="octet-stream", filename=name.replace("_dot_", ".")
        )
    return made.as_bytes()


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (mail("XDM/1.0/DDM+CR de réunion"), Kind.HUMAN, "unexpected"),
        (mail("Votre courrier", IHE_XDM_dot_zip=zipped(valid())), Kind.DOCUMENT, "document-received"),
        (mail("XDM/1.0/DDM+CR de réunion", CR_dot_pdf=samples.PDF), Kind.HUMAN, "unexpected"),
        (mail("Votre courrier", CR_dot_pdf=samples.PDF), Kind.HUMAN, "unexpected"),
        (mail("Votre courrier", archive_dot_zip=zipped(valid())), Kind.HUMAN, "unexpected"),
    ],
    ids=["X19 prefix alone", "X19 zip alone", "X20 PDF with the prefix", "X20 PDF", "another zip"],
)
def test_x19_x20_what_a_mail_holds_says_what_it_is_and_not_its_subject(content, kind, reason):
    found = receipts.read(content)
    assert (found.kind, found.reason) == (kind, reason)
