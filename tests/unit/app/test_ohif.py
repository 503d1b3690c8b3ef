"""Laying down OHIF: known bytes or nothing, plain names or none, whole or not at all."""

import base64
import gzip
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.app import ohif
from gateway.app.commands import cli
from gateway.errors import InvalidContent, Unavailable
from gateway.portal.ohif_routes import VERSION, folder_of

GOOD = {
    "package/LICENSE": b"MIT",
    "package/package.json": b"{}",
    "package/dist/index.html": b"<script>1</script>",
    "package/dist/sw.js": b"importScripts('https://elsewhere.example/x.js')",
    "package/dist/app.bundle.0123456789abcdef.js": b'x; __webpack_require__.p = "/"; y',
    "package/dist/app.bundle.css": b"a{src:url(/f.woff2)} b{src:url(//x/y)} c{src:url(data:x)}",
    "package/dist/app.bundle.js.map": b"{}",
    "package/dist/assets/favicon.ico": b"ico",
}


def archive(path: Path, files=None, *, members=()) -> Path:
    with tarfile.open(path, "w:gz") as package:
        for name, content in (files or GOOD).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
        for member in members:
            package.addfile(member)
    return path


@pytest.fixture
def known(monkeypatch):
    """Take an archive for the one whose hash is known."""

    def take(path: Path) -> Path:
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        monkeypatch.setattr(ohif, "INTEGRITY", f"sha512-{digest}")
        return path

    return take


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_needed_is_laid_down_for_its_place(tmp_path, known):
    folder = ohif.install(tmp_path, archive=known(archive(tmp_path / "a.tgz")))
    assert folder == folder_of(tmp_path)
    assert names(folder) == {
        "LICENSE",
        "app.bundle.0123456789abcdef.js",
        "app.bundle.0123456789abcdef.js.gz",
        "app.bundle.css",
        "app.bundle.css.gz",
        "assets/favicon.ico",
    }
    assert b'__webpack_require__.p = "/ohif/"' in (folder / "app.bundle.0123456789abcdef.js").read_bytes()
    css = (folder / "app.bundle.css").read_bytes()
    assert css == b"a{src:url(/ohif/f.woff2)} b{src:url(//x/y)} c{src:url(data:x)}"
    assert gzip.decompress((folder / "app.bundle.css.gz").read_bytes()) == css
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_other_bytes_install_nothing_and_leave_what_stands(tmp_path, known):
    good = known(archive(tmp_path / "a.tgz"))
    folder = ohif.install(tmp_path, archive=good)
    before = names(folder)
    other = archive(tmp_path / "b.tgz", {**GOOD, "package/dist/more.js": b"1"})
    with pytest.raises(InvalidContent) as refusal:
        ohif.install(tmp_path, archive=other)
    assert refusal.value.code == "ohif-integrity"
    assert names(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_hash_that_is_known_is_the_registry_s_own():
    """As ``npm view @ohif/app@3.13.2 dist.integrity`` told it."""
    assert VERSION == "3.13.2"
    assert ohif.INTEGRITY.startswith("sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq")


def test_a_second_installation_takes_the_place_of_the_first(tmp_path, known):
    ohif.install(tmp_path, archive=known(archive(tmp_path / "a.tgz")))
    second = known(archive(tmp_path / "b.tgz", {**GOOD, "package/dist/more.js": b"1"}))
    assert "more.js" in names(ohif.install(tmp_path, archive=second))


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_names_that_lead_elsewhere_and_what_is_no_file_are_left_out(tmp_path, known):
    hostile = {
        "package/dist/../../../escaped.js": b"1",
        "/package/dist/absolute.js": b"1",
        "package/dist/../up.js": b"1",
        "package/dist/.hidden": b"1",
        "package/dist/a b.js": b"1",
        "package/dist/a\nb.js": b"1",
        "package/scripts/postinstall.js": b"1",
    }
    members = (
        link("package/dist/link.js", tarfile.SYMTYPE, "/etc/passwd"),
        link("package/dist/hard.js", tarfile.LNKTYPE, "package/LICENSE"),
        link("package/dist/fifo.js", tarfile.FIFOTYPE, ""),
        link("package/dist/device.js", tarfile.CHRTYPE, ""),
    )
    path = known(archive(tmp_path / "a.tgz", {**GOOD, **hostile}, members=members))
    assert names(ohif.install(tmp_path / "data", archive=path)) == names(
        ohif.install(tmp_path / "plain", archive=known(archive(tmp_path / "b.tgz")))
    )
    assert not list(tmp_path.rglob("escaped.js"))


def test_an_archive_that_swells_is_refused(tmp_path, known, monkeypatch):
    monkeypatch.setattr(ohif, "_MAX_BYTES", 1000)
    path = known(archive(tmp_path / "a.tgz", {**GOOD, "package/dist/zeros.js": bytes(100_000)}))
    with pytest.raises(InvalidContent):
        ohif.install(tmp_path, archive=path)
    monkeypatch.setattr(ohif, "_MAX_ARCHIVE_BYTES", 10)
    with pytest.raises(InvalidContent, match="10 octets"):
        ohif.install(tmp_path, archive=path)
    assert not folder_of(tmp_path).exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a tar", gzip.compress(b"nor this", mtime=0)], ids=["empty", "text", "gzip"]
)
def test_what_is_no_archive_is_refused(tmp_path, known, content):
    path = tmp_path / "a.tgz"
    path.write_bytes(content)
    with pytest.raises(InvalidContent) as refusal:
        ohif.install(tmp_path, archive=known(path))
    assert refusal.value.code == "ohif-archive"


@pytest.fixture
def registry(tmp_path):
    """A registry over loopback that gives what it is told to."""
    answers: dict[str, tuple[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, content = answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


def test_the_command_fetches_it_from_a_registry(tmp_path, known, registry, monkeypatch):
    url, answers = registry
    content = known(archive(tmp_path / "a.tgz")).read_bytes()
    answers[f"/npm/@ohif/app/-/app-{VERSION}.tgz"] = (200, content)
    monkeypatch.setenv("RCP_DATA_DIR", str(tmp_path / "data"))
    done = CliRunner().invoke(cli, ["viewer", "install", "--registry", f"{url}/npm/"])
    assert (done.exit_code, VERSION in done.output) == (0, True), done.output
    assert folder_of(tmp_path / "data").is_dir()
    answers[f"/npm/@ohif/app/-/app-{VERSION}.tgz"] = (200, content[:-1])
    assert CliRunner().invoke(cli, ["viewer", "install", "--registry", f"{url}/npm"]).exit_code == 1


def test_a_registry_that_does_not_answer_is_said_to(tmp_path, registry):
    url, _ = registry
    for address in (url, "http://127.0.0.1:1"):
        with pytest.raises(Unavailable) as refusal:
            ohif.install(tmp_path, registry=address)
        assert refusal.value.code == "ohif-registry"
    assert not folder_of(tmp_path).exists()
