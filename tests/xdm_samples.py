"""A valid XDM archive of a fictitious report, opened by the standard library, for tests that break it."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import cache

from gateway.documents import frcp
from gateway.mssante import xdm
from gateway.rcp.report_content import CodedValue, Organisation, ReportContent
from tests.report_samples import content

METADATA = "IHE_XDM/SUBSET01/METADATA.XML"
DOCUMENT = "IHE_XDM/SUBSET01/DOC0001.XML"
SENDER = xdm.Sender(
    source_id="1.2.250.1.999.77",
    organisation=Organisation(name="3C d’essai"),
    application="essai",
    version="0",
    publisher="essai",
)
_CODE = CodedValue(frcp.CODE.code, frcp.CODE.system, frcp.CODE.label)


def archive_of(facts: ReportContent) -> bytes:
    """The archive that carries a report."""
    cda = frcp.render(facts)
    return xdm.build(xdm.report_submission(facts, cda, SENDER, cda_code=_CODE, title=frcp.title(facts)))


@cache
def _valid() -> bytes:
    return archive_of(content())


def opened(archive: bytes) -> dict[str, bytes]:
    """The files of an archive of ours."""
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        return {name: found.read(name) for name in found.namelist()}


def valid() -> dict[str, bytes]:
    """The files of a valid archive."""
    return opened(_valid())


def zipped(files: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Zip files as any other program does."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def with_document(files: dict[str, bytes], change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    """Change the document, and say its new hash and size in the metadata."""
    old, new = files[DOCUMENT], change(files[DOCUMENT])
    assert old != new
    said = files[METADATA]
    for before, after in ((_sha1(old), _sha1(new)), (f">{len(old)}<", f">{len(new)}<")):
        assert said.count(before.encode()) == 1
        said = said.replace(before.encode(), after.encode())
    return files | {DOCUMENT: new, METADATA: said}


def with_metadata(files: dict[str, bytes], old: str, new: str, times: int = 1) -> dict[str, bytes]:
    """Change the metadata in one known place."""
    said = files[METADATA]
    assert said.count(old.encode()) == times
    return files | {METADATA: said.replace(old.encode(), new.encode())}


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


PDF = b"%PDF-1.4 une copie lisible"
COPY = "IHE_XDM/SUBSET01/DOC0002.PDF"


def with_copy(files: Mapping[str, bytes], unique_id: str, content: bytes = PDF) -> dict[str, bytes]:
    """Add a readable copy of the document, described in the metadata as a document of its own."""
    said, old = files[METADATA].decode(), files[DOCUMENT]
    begin, end = (
        said.index("<rim:ExtrinsicObject"),
        said.index("</rim:ExtrinsicObject>") + len("</rim:ExtrinsicObject>"),
    )
    entry = said[begin:end]
    named = re.search(
        r'value="([^"]*)"[^>]*>\s*<rim:Name>\s*<rim:LocalizedString[^>]*"XDSDocumentEntry.uniqueId"', entry
    )
    assert named is not None
    changes = {
        named[1]: unique_id,
        "DOC0001.XML": "DOC0002.PDF",
        'mimeType="text/xml"': 'mimeType="application/pdf"',
        f">{len(old)}<": f">{len(content)}<",
        _sha1(old): _sha1(content),
    }
    for before, after in changes.items():
        assert entry.count(before) == 1, before
        entry = entry.replace(before, after)
    entry = re.sub(r"urn:uuid:(?=[0-9a-f]{8}-[0-9a-f]{4}-5)[0-9a-f]{4}", "urn:uuid:0000", entry)
    return {**files, METADATA: (said[:end] + entry + said[end:]).encode(), COPY: content}
