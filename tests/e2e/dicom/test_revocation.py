"""Certificates that their authority took back: openssl's lists, dcmtk's programs, the port and `check`."""

import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from gateway.app.check import probe
from gateway.dicom.scu import client_tls
from gateway.settings import Dicom, SettingsError, load
from gateway.transport import Address, Tls
from tests.e2e.dicom.conftest import storescu
from tests.e2e.dicom.peers import dcmtk, presenting, receiver, register, tunnel
from tests.e2e.dicom.test_tls import KEYS, stored, tool
from tests.loopback import wait_until


class Lists:
    """What an authority says of its certificates, by openssl."""

    def __init__(self, folder: Path, authority: Path, name: str = "ca") -> None:
        self._folder, self._authority, self._name = folder, authority, name
        folder.mkdir()
        (folder / "index").touch()
        (folder / "number").write_text("01\n")
        (folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=us\n[us]\ndatabase={folder}/index\ncrlnumber={folder}/number\ndefault_md=sha256\n"
            f"certificate={authority}/{name}.pem\nprivate_key={authority}/{name}.key\n"
        )

    def revoke(self, certificate: str) -> None:
        self._openssl("-revoke", str(self._authority / f"{certificate}.pem"))

    def write(self, to: Path, *, began: timedelta = timedelta(hours=-1), ends: timedelta = timedelta(days=1)) -> None:
        """Put a new list in the place of the former one."""
        last, following = (f"{datetime.now(UTC) + one:%Y%m%d%H%M%SZ}" for one in (began, ends))
        part = to.with_suffix(".part")
        self._openssl("-gencrl", "-crl_lastupdate", last, "-crl_nextupdate", following, "-out", str(part))
        part.replace(to)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", "ca", "-config", self._folder / "ca.cnf", *arguments], check=True, capture_output=True
        )


@pytest.fixture
def lists(tmp_path, authority) -> Lists:
    return Lists(tmp_path / "lists", authority)


@pytest.fixture
def crl(tmp_path) -> Path:
    return tmp_path / "liste.crl"


@pytest.fixture
def opened(make_port, world, authority, crl):
    """Open the port, and say what stands in the log of lists."""

    def open_port():
        world.session.commit()
        return make_port(
            profile="prod",
            dicom=Dicom(bind=Address("127.0.0.1", 0), tls=tls(authority, crl), tls_destinations=("LECTEUR",)),
        )

    return open_port


def tls(authority: Path, crl: Path) -> Tls:
    return Tls(authority / "here.pem", authority / "here.key", authority / "ca.pem", crl)


def lines(caplog) -> set[str]:
    return {record.getMessage() for record in caplog.records if record.name == "gateway.transport"}


def said(caplog) -> set[str]:
    """Say what the log says by now, and forget it."""
    found = lines(caplog)
    caplog.clear()
    return found


def told(caplog) -> set[str]:
    """As `said`, once there is something: who is refused may know it before it is written down."""
    assert wait_until(lambda: lines(caplog))
    return said(caplog)


def test_who_was_revoked_sends_nothing_and_the_others_do(opened, authority, lists, crl, ct, session, caplog):
    lists.revoke("another")
    lists.write(crl)
    port = opened()
    refused = tool("storescu", port.port, *presenting(authority, "another"), files=ct)
    assert (refused.returncode != 0, "Received Store Response" in refused.stdout, stored(session)) == (True, False, 0)
    assert told(caplog) == {"tls-crl: certificate revoked"}
    sent = tool("storescu", port.port, *presenting(authority), files=ct)
    assert (sent.returncode, stored(session)) == (0, len(ct)), sent.stdout
    assert said(caplog) == set()


def test_a_new_list_counts_from_the_next_handshake_on(opened, authority, lists, crl):
    lists.write(crl)
    port = opened()
    assert tool("echoscu", port.port, *presenting(authority, "another")).returncode == 0
    lists.revoke("another")
    lists.write(crl)
    assert tool("echoscu", port.port, *presenting(authority, "another")).returncode != 0
    assert tool("echoscu", port.port, *presenting(authority)).returncode == 0


@pytest.mark.parametrize(
    ("began", "ends", "reason"),
    [
        (timedelta(days=-9), timedelta(hours=-1), "CRL has expired"),
        (timedelta(hours=2), timedelta(days=2), "CRL is not yet valid"),
    ],
)
def test_a_list_that_is_not_of_today_lets_nobody_in_until_there_is_one(
    opened, authority, lists, crl, caplog, began, ends, reason
):
    lists.write(crl, began=began, ends=ends)
    port = opened()
    assert tool("echoscu", port.port, *presenting(authority)).returncode != 0
    assert told(caplog) == {f"tls-crl: {reason}"}
    lists.write(crl)
    assert tool("echoscu", port.port, *presenting(authority)).returncode == 0


def test_the_list_of_another_authority_is_none(opened, authority, tmp_path, crl, caplog):
    Lists(tmp_path / "theirs", authority, "stranger").write(crl)
    port = opened()
    assert tool("echoscu", port.port, *presenting(authority)).returncode != 0
    assert told(caplog) == {"tls-crl: unable to get certificate CRL"}


@pytest.mark.parametrize("instead", ["nothing", "half a list", "an authority among the lists"])
def test_a_file_that_cannot_be_used_changes_nothing_but_the_log(opened, authority, lists, crl, caplog, instead):
    lists.revoke("another")
    lists.write(crl)
    port = opened()
    content = crl.read_bytes()
    if instead == "nothing":
        crl.unlink()
    elif instead == "half a list":
        crl.write_bytes(content[: len(content) // 2])
    else:  # where lists come from, nobody may say whom we believe
        crl.write_bytes(content + (authority / "stranger.pem").read_bytes())
    assert tool("echoscu", port.port, *presenting(authority, "another")).returncode != 0
    assert tool("echoscu", port.port, *presenting(authority, "foreign"), "-ic").returncode != 0
    assert tool("echoscu", port.port, *presenting(authority)).returncode == 0
    assert {one for one in said(caplog) if "revoked" not in one} != set()
    lists.write(crl)
    assert tool("echoscu", port.port, *presenting(authority)).returncode == 0
    assert said(caplog) == set()


def test_a_destination_that_was_revoked_gets_nothing(
    opened, authority, lists, crl, ct, session, world, tmp_path, caplog
):
    lists.write(crl)
    port = opened()
    with (
        tunnel(port.port, authority) as plain,
        receiver(tmp_path / "lecteur", "LECTEUR", *presenting(authority, "second")) as reader,
    ):
        assert storescu(plain, *ct).returncode == 0
        register(session, world.partner, "LECTEUR", reader.port)
        lists.revoke("second")
        lists.write(crl)
        assert dcmtk("movescu", plain, "-S", "-aem", "LECTEUR", keys=KEYS).returncode != 0
        assert (reader.files, told(caplog)) == ([], {"tls-crl: certificate revoked"})


def test_a_web_server_that_was_revoked_is_said_nothing(authority, lists, crl, caplog):
    """Over HTTP the connection is another library's: it is refused there as well, from the next handshake on."""
    heard = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(204)
            self.send_header("Connection", "close")
            self.end_headers()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "second.pem", authority / "second.key")
    lists.write(crl)
    with (
        HTTPServer(("127.0.0.1", 0), Server) as server,
        httpx.Client(verify=client_tls(tls(authority, crl)), trust_env=False) as client,
    ):
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"https://127.0.0.1:{server.server_address[1]}/dicom-web/studies"
        try:
            assert client.get(there).status_code == 204
            lists.revoke("second")
            lists.write(crl)
            with pytest.raises(httpx.ConnectError):
                client.get(there)
        finally:
            server.shutdown()
    assert (heard, told(caplog)) == (["/dicom-web/studies"], {"tls-crl: certificate revoked"})


@pytest.mark.parametrize("wire", ["DICOM", "MLLP"])
def test_check_says_what_is_wrong_with_the_lists(database_url, authority, lists, crl, tmp_path, wire):
    files = {"CERT": "here.pem", "KEY": "here.key", "CA": "ca.pem"}
    environment = {f"RCP_{wire}_TLS_{name}": str(authority / file) for name, file in files.items()}
    environment |= {
        "RCP_DATA_DIR": str(tmp_path / "data"),
        "RCP_DATABASE_URL": database_url,
        f"RCP_{wire}_TLS_CRL": str(crl),
    }

    def told() -> str | None:
        return dict(probe(load(environment), only={wire.lower()}))[wire.lower()]

    lists.write(crl)
    assert told() is None
    lists.write(crl, began=timedelta(days=-9), ends=timedelta(hours=-1))
    assert told() == f"RCP_{wire}_TLS_CRL : liste de révocation périmée, à renouveler"
    Lists(tmp_path / "theirs", authority, "stranger").write(crl)
    assert told() == f"RCP_{wire}_TLS_CRL : aucune liste de révocation lisible d’une autorité de RCP_{wire}_TLS_CA"
    crl.write_text("rien")
    assert "ou leurs listes (RCP_…_TLS_…)" in str(told())
    del environment[f"RCP_{wire}_TLS_CA"]
    with pytest.raises(SettingsError) as refused:
        told()
    assert refused.value.faults == [f"RCP_{wire}_TLS_CA : exigée avec RCP_{wire}_TLS_CRL"]
