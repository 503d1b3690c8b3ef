"""A zip that somebody else made, opened in memory without believing what it says of itself.

Promises: nothing is written to a disk, no entry's name is used as a path; number of entries, sizes and ratio are
bounded before and while bytes are unpacked; sizes and checks (CRC-32) are judged on the bytes read; what the two
directories of a zip (the central one, and the header before each entry) say differently is refused, as are entries
that share bytes. One code for each reason. Not promised: zip64, several volumes, methods but stored and deflated.

Sources: [ZIP APPNOTE], spec mssante 7.4 (X01 to X04).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.errors import InvalidContent

__all__ = ["ZIP_MAGIC", "ArchiveLimits", "unpack"]

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip begins: with an entry, or empty."""

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_MAGIC, _CENTRAL_MAGIC, _LOCAL_MAGIC = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_MAX_COMMENT = 0xFFFF
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_STORED, _DEFLATED = 0, 8
_UNIX, _KIND, _LINK, _FILE, _FOLDER = 3, 0o170000, 0o120000, 0o100000, 0o040000
_CHUNK = 64 * 1024
#: What a writer that streams says of a size that it does not know yet.
_UNKNOWN = 0xFFFFFFFF
# A drive, a root, a step upwards, the other slash, a control character.
_ASTRAY = re.compile(r"^[A-Za-z]:|^/|(?:^|/)\.\.?(?:/|$)|\\|[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What a zip may hold [spec mssante 7.4 X01].

    Parameters
    ----------
    entries, name_bytes
        Entries, and bytes of a name.
    ratio
        Bytes unpacked for one packed, in one entry.
    unpacked_bytes
        Of all entries together.
    """

    entries: int = 100
    name_bytes: int = 255
    ratio: int = 100
    unpacked_bytes: int = 50_000_000


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def unpack(content: bytes, limits: ArchiveLimits | None = None) -> Mapping[str, bytes]:
    """Return the files of a zip by name, in the order of its directory; folders are left out.

    Raises
    ------
    InvalidContent
        ``zip-illisible`` (no zip, or one that contradicts itself), ``zip-tronque``, ``zip-bombe`` (names the limit),
        ``zip-chemin``, ``zip-doublon``, ``zip-chiffre``, ``zip-methode``, ``zip-crc``.
    """
    limits = limits or ArchiveLimits()
    found = list(_directory(content, limits))
    total = sum(entry.size for entry in found)
    if total > limits.unpacked_bytes:
        raise _bomb(f"plus de {limits.unpacked_bytes} octets annoncés")
    names = [entry.name.rstrip("/").casefold() for entry in found]
    if len(set(names)) != len(names):
        raise InvalidContent("zip-doublon", "Archive refusée : deux entrées portent le même nom.")
    files, ends = {}, 0
    for entry in sorted(found, key=lambda one: one.offset):
        if entry.offset < ends:
            raise _bomb("des entrées partagent les mêmes octets")
        start = _body(content, entry)
        ends = start + entry.packed
        if ends > len(content):
            raise _truncated()
        files[entry.name] = _read(content[start:ends], entry)
    return {entry.name: files[entry.name] for entry in found if not entry.name.endswith("/")}


def _directory(content: bytes, limits: ArchiveLimits) -> Iterator[_Entry]:
    where = content.rfind(_END_MAGIC, max(0, len(content) - _END.size - _MAX_COMMENT))
    if where < 0:
        raise _truncated() if content.startswith(ZIP_MAGIC) else _unreadable()
    if where + _END.size > len(content):
        raise _truncated()
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(content, where)
    if disk or first_disk or here != count or where + _END.size + comment != len(content):
        raise _unreadable()
    if count > limits.entries:
        raise _bomb(f"plus de {limits.entries} entrées")
    if offset + size != where:  # something stands before the zip, or its directory is not where it says
        raise _unreadable()
    at = offset
    for _ in range(count):
        entry, at = _central(content, at, where, limits)
        yield entry
    if at != where:
        raise _unreadable()


def _central(content: bytes, at: int, end: int, limits: ArchiveLimits) -> tuple[_Entry, int]:
    if at + _CENTRAL.size > end:
        raise _unreadable()
    magic, made_by, _, flags, method, _, _, crc, packed, size, name, extra, comment, disk, _, external, offset = (
        _CENTRAL.unpack_from(content, at)
    )
    past = at + _CENTRAL.size + name + extra + comment
    if magic != _CENTRAL_MAGIC or disk or past > end:
        raise _unreadable()
    if name > limits.name_bytes:
        raise InvalidContent("zip-chemin", f"Archive refusée : un nom dépasse {limits.name_bytes} octets.")
    raw = content[at + _CENTRAL.size : at + _CENTRAL.size + name]
    # Names are only compared: bytes beyond ASCII are read alike whatever the archive says of them.
    said = raw.decode("utf-8", "replace")
    kind = (external >> 16) & _KIND if made_by >> 8 == _UNIX else 0
    if not said or _ASTRAY.search(said) or kind not in {0, _FILE, _FOLDER}:
        raise InvalidContent("zip-chemin", "Archive refusée : une entrée sort de l’archive ou n’est pas un fichier.")
    if flags & _ENCRYPTED:
        raise InvalidContent("zip-chiffre", "Archive refusée : elle est chiffrée.")
    if method not in {_STORED, _DEFLATED}:
        raise InvalidContent("zip-methode", "Archive refusée : sa méthode de compression n’est pas acceptée.")
    if size > limits.unpacked_bytes:
        raise _bomb(f"plus de {limits.unpacked_bytes} octets annoncés")
    if size > limits.ratio * packed:
        raise _bomb(f"taux de compression supérieur à {limits.ratio}")
    return _Entry(said, raw, flags, method, crc, packed, size, offset), past


def _body(content: bytes, entry: _Entry) -> int:
    """Return where the bytes of an entry begin, once its own header says what the directory says."""
    if entry.offset + _LOCAL.size > len(content):
        raise _truncated()
    magic, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack_from(content, entry.offset)
    at = entry.offset + _LOCAL.size
    later = flags & 0x0008  # the numbers follow the bytes
    numbers = (crc, packed, size)
    same = numbers == (entry.crc, entry.packed, entry.size) or (later and set(numbers) <= {0, _UNKNOWN})
    if magic != _LOCAL_MAGIC or content[at : at + name] != entry.raw_name or method != entry.method:
        raise _unreadable()
    if flags & _ENCRYPTED:
        raise InvalidContent("zip-chiffre", "Archive refusée : elle est chiffrée.")
    if not same:
        raise _bomb("la taille annoncée n’est pas la même deux fois")
    return at + int(name) + int(extra)


def _read(packed: bytes, entry: _Entry) -> bytes:
    data = packed if entry.method == _STORED else _inflate(packed, entry.size)
    if len(data) != entry.size:
        raise _bomb("la taille annoncée n’est pas celle du contenu")
    if zlib.crc32(data) != entry.crc:
        raise InvalidContent("zip-crc", "Archive refusée : le contrôle (CRC) d’une entrée ne correspond pas.")
    return data


def _inflate(packed: bytes, size: int) -> bytes:
    reader, read = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    waiting = packed
    try:
        while not reader.eof and len(read) <= size:
            more = reader.decompress(waiting, min(_CHUNK, size + 1 - len(read)))
            waiting = reader.unconsumed_tail
            read += more
            if not more and not waiting:
                break
    except zlib.error:
        raise _truncated() from None
    if not reader.eof and len(read) <= size:
        raise _truncated()
    if reader.unused_data:
        raise _unreadable()
    return bytes(read)


def _bomb(reason: str) -> InvalidContent:
    return InvalidContent("zip-bombe", f"Archive refusée : {reason}.")


def _truncated() -> InvalidContent:
    return InvalidContent("zip-tronque", "Archive refusée : elle est incomplète ou abîmée.")


def _unreadable() -> InvalidContent:
    return InvalidContent("zip-illisible", "Archive refusée : ce n’est pas une archive zip cohérente.")
