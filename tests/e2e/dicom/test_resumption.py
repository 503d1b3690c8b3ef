"""What a TLS client kept of an earlier handshake opens nothing: lists and certificates decide each time anew."""

import socket
import ssl
import subprocess
from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.dicom.conftest import AE_TITLE, need
from tests.e2e.dicom.test_revocation import Lists, crl, lists, opened  # noqa: F401 - fixtures
from tests.e2e.dicom.test_tls import TLS_1_2, TLS_1_3
from tests.loopback import wait_until
from tests.unit.dicom.raw_peer import ECHO_RQ, P_DATA, Peer, p_data, pdv, status


class Caller:
    """A client that offers the session of its first talk, as Java's do; that talk goes on meanwhile, in the cache."""

    def __init__(self, port: int, authority, version: ssl.TLSVersion) -> None:
        self._port, self._session, self._open = port, None, []
        self._context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
        self._context.minimum_version = self._context.maximum_version = version
        self._context.load_cert_chain(authority / "another.pem", authority / "another.key")

    def echo(self) -> bool | None:
        """Whether the session was taken up again in a talk in which a C-ECHO is answered; None when there is none."""

        def wrap(sock: socket.socket) -> ssl.SSLSocket:
            return self._context.wrap_socket(sock, server_hostname="127.0.0.1", session=self._session)

        try:
            peer = Peer(self._port, calling=AE_TITLE.encode(), wrap=wrap)
            peer.send(p_data(pdv(3, 3, ECHO_RQ)))
            kind, body = peer.read()
        except (OSError, EOFError):
            return None
        assert (kind, status(body)) == (P_DATA, 0x0000)
        self._session = peer.sock.session
        self._open.append(peer)
        return peer.sock.session_reused

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@pytest.fixture
def calling(authority):
    """Make callers, who hang up at the end."""
    made = []

    def make(port: int, version: ssl.TLSVersion) -> Caller:
        made.append(Caller(port, authority, version))
        return made[-1]

    yield make
    for one in made:
        one.close()


@VERSIONS
def test_a_session_that_was_kept_does_not_let_a_revoked_client_in(opened, calling, lists, crl, version):  # noqa: F811
    lists.write(crl)
    caller = calling(opened().port, version)
    assert [caller.echo(), caller.echo()] == [False, False]
    lists.revoke("another")
    lists.write(crl)
    assert caller.echo() is None


@VERSIONS
def test_a_list_that_ends_while_the_port_serves_lets_nobody_in_from_then_on(opened, calling, lists, crl, version):  # noqa: F811
    """The file does not change: whoever kept a session is refused as whoever begins, until there is a new list."""
    lists.write(crl, ends=timedelta(seconds=4))
    port = opened().port
    known = calling(port, version)
    assert known.echo() is False

    def refused() -> bool:
        stranger = calling(port, version)
        said = stranger.echo()
        stranger.close()
        return said is None

    assert wait_until(refused)
    assert known.echo() is None
    lists.write(crl)
    assert known.echo() is False


def test_sslscan_finds_nothing_that_bcp_195_forbids(secured, authority, tmp_path):
    """[RFC 9325 3.1, 3.3, 3.5, 4.1, 4.2]: a judge from outside, of what a client with a certificate may negotiate."""
    report = tmp_path / "report.xml"
    shown = (f"--certs={authority / 'here.pem'}", f"--pk={authority / 'here.key'}")
    command = [need("sslscan"), "--no-colour", f"--xml={report}", *shown, f"127.0.0.1:{secured.port}"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    [test] = ET.parse(report).getroot().iter("ssltest")
    versions = {f"{one.get('type')}v{one.get('version')}": one.get("enabled") for one in test.iter("protocol")}
    assert versions == {
        **dict.fromkeys(("sslv2", "sslv3", "tlsv1.0", "tlsv1.1"), "0"),
        **dict.fromkeys(("tlsv1.2", "tlsv1.3"), "1"),
    }, said.stdout
    suites = {(one.get("sslversion"), one.get("cipher")) for one in test.iter("cipher")}
    assert suites == {("TLSv1.2", name) for name in TLS_1_2} | {("TLSv1.3", name) for name in TLS_1_3}
    assert [one.get("supported") for one in test.iter("renegotiation")] == ["0"]
    assert [one for one in test.iter("compression") if one.get("supported") != "0"] == []
    assert {one.get("vulnerable") for one in test.iter("heartbleed")} == {"0"}
