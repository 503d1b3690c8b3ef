"""OHIF, a viewer of others, laid down beside the gateway by the person who wants it.

Promises: one version, known by the hash of its archive, from a registry of npm packages over HTTPS or from a file that
somebody carried here; nothing of the archive is run, and of its names only plain ones inside its folder are written;
what is installed stands whole or not at all; what would ask other sites for anything is left out. Node is not needed.
Serving it is `gateway.portal.ohif_routes`'s.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import shutil
import ssl
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import httpx

from gateway.errors import InvalidContent, Unavailable
from gateway.portal.ohif_routes import BASE, VERSION, folder_of

__all__ = ["INTEGRITY", "REGISTRY", "install"]

REGISTRY: Final = "https://registry.npmjs.org"
#: Of the archive of `VERSION`, as the registry tells it (``npm view @ohif/app@… dist.integrity``).
INTEGRITY: Final = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="

_MAX_ARCHIVE_BYTES: Final = 128 << 20
_MAX_BYTES, _MAX_FILES = 512 << 20, 4000
_CHUNK: Final = 1 << 20
_NAME: Final = re.compile(
    r"package/(?:LICENSE|dist/(?:[A-Za-z0-9_@-][A-Za-z0-9_.@-]*/){0,6}[A-Za-z0-9_@-][A-Za-z0-9_.@-]*)"
)
#: Left out: service workers and sign-ins that ask other sites, models of a segmentation that is not offered, maps.
_LEFT_OUT: Final = re.compile(
    r"package/dist/(?:sw\.js|init-service-worker\.js|google\.js|silent-refresh\.html|oidc-client\.min\.js|serve\.json"
    r"|app-config\.js|index\.html|manifest\.json|ort/.*|customizations/.*|dicom-microscopy-viewer/.*|.*\.(?:map|LICENSE\.txt))"
)
#: The archive is built for the root of a site.
_ROOTED: Final = (
    (".js", re.compile(rb'__webpack_require__\.p = "/"'), f'__webpack_require__.p = "{BASE}/"'.encode()),
    (".css", re.compile(rb"url\(/(?!/)"), f"url({BASE}/".encode()),
)
_PACKED: Final = (".js", ".css", ".wasm", ".svg", ".json")


def install(
    data_dir: Path,
    *,
    archive: Path | None = None,
    registry: str = REGISTRY,
    progress: Callable[[int], None] = lambda _: None,
) -> Path:
    """Lay down the viewer; give its folder.

    Parameters
    ----------
    archive
        The package as a file, when this machine reaches no registry.
    registry
        Address of a registry of npm packages, a mirror for instance: the hash is the same everywhere.
    progress
        Told how many bytes came.

    Raises
    ------
    InvalidContent
        ``ohif-integrity``: other bytes than those of the version that is known; ``ohif-archive``.
    Unavailable
        ``ohif-registry``, ``ohif-disk``.
    """
    folder = folder_of(data_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ohif-") as work:
            fetched = Path(work) / "package.tgz"
            with fetched.open("wb") as file:
                _checked(_read(archive) if archive else _download(registry), file, progress)
            made = Path(work) / "made"
            made.mkdir()
            _unpack(fetched, made)
            _put(made, folder)
    except OSError as error:
        raise Unavailable("ohif-disk", "La visionneuse n’a pas pu être écrite sur le disque.") from error
    return folder


def _read(archive: Path) -> Iterator[bytes]:
    with archive.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _download(registry: str) -> Iterator[bytes]:
    url = f"{registry.rstrip('/')}/@ohif/app/-/app-{VERSION}.tgz"
    try:
        # The machine's own authorities: a hospital's proxy is often one.
        with (
            httpx.Client(verify=ssl.create_default_context(), timeout=60, follow_redirects=True) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            yield from answer.iter_raw(_CHUNK)
    except (httpx.HTTPError, ssl.SSLError) as error:
        raise Unavailable("ohif-registry", "Le registre npm ne répond pas (voir --registry et --archive).") from error


def _checked(chunks: Iterator[bytes], file: BinaryIO, progress: Callable[[int], None]) -> None:
    seen, size = hashlib.sha512(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > _MAX_ARCHIVE_BYTES:
            raise InvalidContent("ohif-archive", f"Archive de plus de {_MAX_ARCHIVE_BYTES} octets.")
        seen.update(chunk)
        file.write(chunk)
        progress(size)
    if f"sha512-{base64.b64encode(seen.digest()).decode()}" != INTEGRITY:
        text = f"Ce n’est pas l’archive de @ohif/app {VERSION} : son empreinte est autre. Rien n’a été installé."
        raise InvalidContent("ohif-integrity", text)


def _unpack(archive: Path, folder: Path) -> None:
    total = 0
    try:
        with tarfile.open(archive, "r:gz") as package:
            for count, member in enumerate(package):
                total += member.size
                if count > _MAX_FILES or total > _MAX_BYTES:
                    raise InvalidContent("ohif-archive", "Archive trop grande une fois décompressée.")
                if not member.isreg() or not _NAME.fullmatch(member.name) or _LEFT_OUT.fullmatch(member.name):
                    continue
                source = package.extractfile(member)
                if source is not None:
                    _keep(
                        PurePosixPath(member.name.removeprefix("package/").removeprefix("dist/")), source.read(), folder
                    )
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise InvalidContent("ohif-archive", "Archive illisible.") from error


def _keep(name: PurePosixPath, content: bytes, folder: Path) -> None:
    for suffix, rooted, here in _ROOTED:
        if name.suffix == suffix:
            content = rooted.sub(here, content)
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    if name.suffix in _PACKED:
        target.with_name(f"{target.name}.gz").write_bytes(gzip.compress(content, 6, mtime=0))


def _put(made: Path, folder: Path) -> None:
    """Let the new folder take the place of an old one."""
    if not any(made.glob("app.bundle.*.js")):
        raise InvalidContent("ohif-archive", "Archive sans application.")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
