"""The HL7 v2 port through real sockets: python-hl7, which nobody here wrote, and raw bytes where it is too polite."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import hl7
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hl7.client import MLLPClient
from sqlalchemy import update

from gateway.documents import n1
from gateway.exchange.inbox import Inbox
from gateway.fhir.represent import Representer
from gateway.hl7v2.mllp import Mllp
from gateway.hl7v2.wire import component
from gateway.model.message import Message
from gateway.model.partner import Partner, PartnerCredential
from gateway.model.received import ReceivedDocument
from gateway.model.store import Store, utcnow
from gateway.rcp.step import DomainClock
from gateway.settings import Mllp as MllpSettings
from gateway.settings import Settings
from gateway.transport import Address, Tls
from tests import hl7_samples as samples
from tests.e2e.mail_servers import Authority
from tests.hl7_scene import Scene, open_scene
from tests.loopback import free_port, until, wait_until
from tests.report_samples import content
from tests.world import audit_lines

pytestmark = pytest.mark.usefixtures("nothing_names_anybody")

ANYWHERE = Address("127.0.0.1", 0)


@pytest.fixture
def scene(store: Store, make_steps: Any, blobs: Any) -> Scene:
    made = open_scene(store, make_steps(clock=DomainClock(), represent=Representer(blobs)), blobs)
    known(made, "127.0.0.1")
    return made


def known(scene: Scene, value: str, partner: Partner | None = None) -> None:
    """Register how a partner is recognised, by default the hospital."""
    with scene.store.session() as session:
        owner = partner.id if partner is not None else scene.world.partner.id
        session.add(PartnerCredential(partner_id=owner, kind="mllp", value=value))
        session.commit()


@contextlib.contextmanager
def served(scene: Scene, *, profile: str = "prod", tls: Tls | None = None, **limits: Any) -> Iterator[Mllp]:
    """The port as `component` composes it, with narrower limits where a test needs them; ``prod`` knows its callers."""
    settings = Settings(data_dir=Path(), profile=profile, mllp=MllpSettings(bind=ANYWHERE, tls=tls or Tls()))
    wire = component(settings, scene.steps, scene.blobs)
    wire._limits = replace(wire._limits, **limits)
    wire.start()
    try:
        yield wire
    finally:
        wire.stop()


@pytest.fixture
def port(scene: Scene) -> Iterator[int]:
    with served(scene) as wire:
        yield wire.port


def ask(port: int, *contents: bytes) -> list[tuple[str, str, str, str]]:
    """Send messages on one connection of python-hl7; MSA-1, ERR-2, ERR-3 and ERR-5 of each answer."""
    with MLLPClient("127.0.0.1", port) as client:
        client.socket.settimeout(60)
        return [samples.said(unframed(client.send_message(one))) for one in contents]


def unframed(answer: bytes) -> bytes:
    assert (answer[:1], answer[-2:]) == (b"\x0b", b"\x1c\r")
    return answer[1:-2]


def raw(port: int, *chunks: bytes, timeout_s: float = 30) -> bytes:
    """Send bytes as they are, then read until the port closes or says no more for a moment."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


def framed(content: bytes) -> bytes:
    return b"\x0b" + content + b"\x1c\r"


def count(scene: Scene) -> tuple[int, int]:
    return len(scene.rows(Message)), len(scene.rows(ReceivedDocument))


ACCEPTED = ("AA", "", "", "")


def test_a_client_of_others_sends_a_document_replaces_and_withdraws_it(scene: Scene, port: int) -> None:
    scene.patient()
    assert ask(port, samples.message(), samples.replacement(), samples.deletion()) == [ACCEPTED] * 3
    assert sorted((one.version, one.state) for one in scene.rows(ReceivedDocument)) == [(1, "remplace"), (2, "retire")]
    with MLLPClient("127.0.0.1", port) as client:
        answer = hl7.parse(unframed(client.send_message(samples.message(samples.ORU))).decode())
    assert [str(answer.segment("MSH")[at]) for at in (3, 4, 5, 6)] == [
        "PFI",
        "CH-EXEMPLE",
        "PASSERELLE-RCP",
        "CH-EXEMPLE",
    ]
    assert str(answer.segment("MSH")[9]) == "ACK^R01^ACK"
    assert (str(answer.segment("MSH")[12]), str(answer.segment("MSA")[2])) == ("2.5", "RCP-000201")


def test_the_command_of_python_hl7_is_answered(scene: Scene, port: int, tmp_path: Path) -> None:
    scene.patient()
    (tmp_path / "message.hl7").write_bytes(framed(samples.message()))
    command = [
        Path(sys.executable).with_name("mllp_send"),
        "-p",
        str(port),
        "-f",
        tmp_path / "message.hl7",
        "127.0.0.1",
    ]
    told = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    assert b"\rMSA|AA|RCP-000101\r" in told
    assert count(scene) == (1, 1)


def test_two_connections_with_one_number_at_once_are_one_message(scene: Scene, port: int) -> None:
    scene.patient()
    together = threading.Barrier(4)

    def one(_: int) -> tuple[str, str, str, str]:
        with MLLPClient("127.0.0.1", port) as client:
            together.wait(60)
            return samples.said(unframed(client.send_message(samples.message())))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == [ACCEPTED] * 4
    assert count(scene) == (1, 1)


def test_messages_that_come_in_pieces_or_together_are_answered_in_their_order(scene: Scene, port: int) -> None:
    scene.patient()
    two = framed(samples.message()) + framed(samples.message(MSH_9="ADT^A01^ADT_A01", MSH_10="RCP-2"))
    pieces = [two[at : at + 997] for at in range(0, len(two), 997)]
    for answer in (raw(port, *pieces), raw(port, two)):
        first, second = (unframed(one + b"\x1c\r") for one in answer.split(b"\x1c\r")[:2])
        assert (samples.said(first), samples.said(second)) == (ACCEPTED, ("AE", "MSH^1^9", "200", ""))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_x29_other_line_ends_and_no_last_one_are_accepted(scene: Scene, port: int, end: bytes) -> None:
    scene.patient()
    assert ask(port, samples.message().rstrip(b"\r").replace(b"\r", end)) == [ACCEPTED]


def test_x29_two_messages_in_one_frame_are_refused(scene: Scene, port: int) -> None:
    assert ask(port, samples.message() + samples.message(MSH_10="RCP-2")) == [("AE", "MSH^2", "199", "")]
    assert count(scene) == (1, 0)


def test_x29_without_an_end_in_time_nothing_is_answered_or_kept(scene: Scene) -> None:
    with served(scene, silence_s=0.2) as wire:
        with socket.create_connection(("127.0.0.1", wire.port), timeout=60) as connection:
            connection.sendall(b"\x0b" + samples.message())
            assert connection.recv(100) == b""  # closed by the port
        assert raw(wire.port, b"\x0b" + samples.message()) == b""
    with served(scene, frame_s=0.3) as wire, socket.create_connection(("127.0.0.1", wire.port), timeout=60) as slow:
        slow.sendall(b"\x0b")
        with contextlib.suppress(OSError):
            for _ in range(100):
                slow.sendall(b"M")  # one byte at a time is not for ever
                time.sleep(0.02)
            assert slow.recv(100) == b""
    assert count(scene) == (0, 0)


def test_a_connection_stays_open_between_messages_and_is_closed_when_it_says_nothing_for_long(scene: Scene) -> None:
    with served(scene, idle_s=0.3) as wire, socket.create_connection(("127.0.0.1", wire.port), timeout=60) as idle:
        assert idle.recv(100) == b""


def test_a_message_over_the_limit_is_refused_by_name_and_the_connection_goes_on(scene: Scene) -> None:
    scene.patient()
    limit = len(samples.message())
    with served(scene, message_bytes=limit) as wire:
        large = samples.message() + b"NTE|1||" + b"x" * 3_000_000 + b"\r"
        with MLLPClient("127.0.0.1", wire.port) as client:
            refusal = unframed(client.send_message(large))
            assert samples.said(refusal) == ("AE", "", "199", "")
            told = refusal.decode()
            assert "RCP-000101" in told
            assert "RCP_LIMIT_MLLP_MESSAGE_BYTES" in told
            assert str(limit) in told
            assert samples.said(unframed(client.send_message(samples.message()))) == ACCEPTED
    assert count(scene) == (1, 1)


def test_a_document_of_several_megabytes_comes_whole(scene: Scene, port: int) -> None:
    scene.patient()
    large = n1.render(content(), b"%PDF-1.4 " + bytes(range(256)) * (24 * 1024))  # 6 MiB, twice in base64
    sent = samples.message(document=large, TXA_12=f"{content().document_id.root}.0")
    assert len(sent) > 10_000_000
    assert samples.said(unframed(raw(port, framed(sent)))) == ACCEPTED
    [row] = scene.rows(ReceivedDocument)
    assert (row.format, row.size_bytes, scene.blobs.read(row.sha256)) == ("n1", len(large), large)
    [kept] = scene.rows(Message)
    assert scene.inbox.content(kept.id) == sent


def test_a_connection_over_the_limit_is_closed_and_the_others_go_on(scene: Scene) -> None:
    scene.patient()
    with served(scene, connections=2) as wire:
        with MLLPClient("127.0.0.1", wire.port) as one, MLLPClient("127.0.0.1", wire.port) as two:
            assert samples.said(unframed(one.send_message(samples.message()))) == ACCEPTED
            assert samples.said(unframed(two.send_message(samples.message()))) == ACCEPTED
            with socket.create_connection(("127.0.0.1", wire.port), timeout=60) as third:
                assert third.recv(100) == b""
            assert samples.said(unframed(one.send_message(samples.message()))) == ACCEPTED
        until(lambda: not wire._live())
        assert ask(wire.port, samples.message()) == [ACCEPTED]


def test_what_speaks_another_protocol_is_cut_off(scene: Scene) -> None:
    with served(scene, stray_bytes=1000) as wire:
        assert raw(wire.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        with socket.create_connection(("127.0.0.1", wire.port), timeout=60) as noisy, contextlib.suppress(OSError):
            for _ in range(50):
                noisy.sendall(b"x" * 1000)
            assert noisy.recv(100) == b""
    assert count(scene) == (0, 0)


def test_in_production_a_stranger_is_not_listened_to(scene: Scene) -> None:
    with scene.store.session() as session:
        session.execute(update(PartnerCredential).values(value="10.11.12.13"))
        session.commit()
    with served(scene) as wire, socket.create_connection(("127.0.0.1", wire.port), timeout=60) as stranger:
        assert stranger.recv(100) == b""
    assert count(scene) == (0, 0)
    with scene.store.session() as session:
        refused = [one for one in audit_lines(session) if one["event"] == "refus"]
    assert [(one["address"], one["wire"], one["reason"]) for one in refused] == [
        ("127.0.0.1", "hl7v2", "adresse-inconnue")
    ]


def test_in_trials_a_stranger_is_the_trial_partner(scene: Scene) -> None:
    with scene.store.session() as session:
        session.execute(update(PartnerCredential).values(value="10.11.12.13"))
        session.commit()
    with served(scene, profile="dev") as wire:
        assert ask(wire.port, samples.message()) == [("AE", "PID^1^3", "207", "902")]
    [kept] = scene.rows(Message)
    [trial] = scene.rows(Partner, Partner.name == "dev")
    assert kept.partner_id == trial.id


def test_a_partner_that_is_revoked_is_heard_no_more_on_the_connection_that_he_has(scene: Scene, port: int) -> None:
    scene.patient()
    with MLLPClient("127.0.0.1", port) as client:
        client.socket.settimeout(60)
        assert samples.said(unframed(client.send_message(samples.message()))) == ACCEPTED
        with scene.store.session() as session:
            session.execute(update(Partner).values(revoked_at=utcnow()))
            session.commit()
        assert client.send_message(samples.replacement()) == b""
    assert count(scene) == (1, 1)


# --- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ac"))


def server_tls(authority: Authority) -> Tls:
    certificate, key = authority.issue("passerelle.example")
    return Tls(certificate, key, authority.file)


def fingerprint(certificate: Path) -> str:
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    return "sha256:" + hashlib.sha256(found.public_bytes(serialization.Encoding.DER)).hexdigest()


def tls_ask(port: int, authority: Authority, content: bytes, client: tuple[Path, Path] | None) -> tuple[str, ...]:
    """What a message is answered; nothing when the port cuts instead."""
    context = ssl.create_default_context(cafile=str(authority.file))
    if client is not None:
        context.load_cert_chain(*client)
    answer = b""
    with (
        contextlib.suppress(ConnectionError, ssl.SSLError),
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(framed(content))
        while not answer.endswith(b"\x1c\r"):
            chunk = connection.recv(65536)
            if not chunk:
                break
            answer += chunk
    return samples.said(unframed(answer)) if answer else ()


def test_a_partner_is_known_by_his_client_certificate(scene: Scene, authority: Authority) -> None:
    scene.patient()
    lab, other = (authority.issue(name, client=True) for name in ("labo.chu-x.example", "autre-labo.example"))
    with scene.store.session() as session:
        session.execute(update(PartnerCredential).values(value=fingerprint(lab[0])))
        session.commit()
    with served(scene, tls=server_tls(authority)) as wire:
        assert tls_ask(wire.port, authority, samples.message(), lab) == ACCEPTED
        assert tls_ask(wire.port, authority, samples.message(), other) == ()
        assert tls_ask(wire.port, authority, samples.message(), None) == ()
        with contextlib.suppress(OSError):  # nor in clear
            assert raw(wire.port, framed(samples.message()))[:1] != b"\x0b"
        assert tls_ask(wire.port, authority, samples.replacement(), lab) == ACCEPTED
    assert count(scene) == (2, 2)


def test_behind_one_address_certificates_tell_partners_apart(scene: Scene, authority: Authority) -> None:
    scene.patient()
    clinic_certificate = authority.issue("clinique-z.example", client=True)
    mine = authority.issue("chu-x.example", client=True)
    with scene.store.session() as session:
        clinic = Partner(name="Clinique Z")
        session.add(clinic)
        session.commit()
    known(scene, f"{fingerprint(clinic_certificate[0])}@127.0.0.1", clinic)
    with served(scene, tls=server_tls(authority)) as wire:
        assert tls_ask(wire.port, authority, samples.message(), clinic_certificate)[3] == "902"
        assert tls_ask(wire.port, authority, samples.message(), mine) == ACCEPTED  # by its address alone
    assert {one.partner_id for one in scene.rows(Message)} == {clinic.id, scene.world.partner.id}


def test_who_was_revoked_is_not_listened_to_and_a_list_of_yesterday_lets_nobody_in(
    scene: Scene, authority: Authority, tmp_path: Path
) -> None:
    scene.patient()
    mine, taken_back = (authority.issue(name, client=True) for name in ("chu-x.example", "parti.example"))
    lists = tmp_path / "liste.crl"
    lists.write_bytes(authority.revoke(taken_back[0]))
    with served(scene, tls=replace(server_tls(authority), revoked=lists)) as wire:
        assert tls_ask(wire.port, authority, samples.message(), taken_back) == ()
        assert count(scene) == (0, 0)
        assert tls_ask(wire.port, authority, samples.message(), mine) == ACCEPTED
        lists.write_bytes(authority.revoke(began_days_ago=9, days=8))
        assert tls_ask(wire.port, authority, samples.replacement(), mine) == ()
        lists.write_bytes(authority.revoke(taken_back[0]))
        assert tls_ask(wire.port, authority, samples.replacement(), mine) == ACCEPTED
    assert count(scene) == (2, 2)


def test_who_never_finishes_the_handshake_holds_nobody_up(scene: Scene, authority: Authority) -> None:
    scene.patient()
    mine = authority.issue("chu-x.example", client=True)
    with (
        served(scene, tls=server_tls(authority), handshake_s=2) as wire,
        socket.create_connection(("127.0.0.1", wire.port), timeout=60) as silent,
    ):
        assert tls_ask(wire.port, authority, samples.message(), mine) == ACCEPTED
        assert silent.recv(100) == b""


def test_a_stop_in_the_middle_of_a_message_answers_it_and_says_nothing_in_clear(
    scene: Scene, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.patient()
    mine = authority.issue("chu-x.example", client=True)
    began, go_on = threading.Event(), threading.Event()
    process = Inbox.process

    def slow(self: Inbox, message_id: Any) -> bool:
        began.set()
        assert go_on.wait(60)
        return process(self, message_id)

    monkeypatch.setattr(Inbox, "process", slow)
    with served(scene, tls=server_tls(authority)) as wire, ThreadPoolExecutor(2) as pool:
        asked = pool.submit(tls_ask, wire.port, authority, samples.message(), mine)
        assert began.wait(60)
        stopping = pool.submit(wire.stop)
        assert wait_until(lambda: wire.port == 0)
        go_on.set()
        assert asked.result(60) == ACCEPTED
        stopping.result(60)
    assert count(scene) == (1, 1)


# --- what breaks -------------------------------------------------------------------------------------------------


@pytest.fixture
def victim(scene: Scene, database_url: str, tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen, int]]]:
    running: list[subprocess.Popen] = []

    def start(when: str) -> tuple[subprocess.Popen, int]:
        port = free_port()
        blobs = f"file://{tmp_path / 'blobs'}"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.mllp_victim", database_url, blobs, str(port), when]
        )
        running.append(process)
        assert wait_until(lambda: process.poll() is not None or _listens(port))
        return process, port

    yield start
    for process in running:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.parametrize(("when", "done"), [("before-step", False), ("before-answer", True)])
def test_a_kill_loses_nothing_and_does_nothing_twice(scene: Scene, victim: Callable, when: str, done: bool) -> None:
    scene.patient()
    process, port = victim(when)
    with contextlib.suppress(ConnectionError):
        assert raw(port, framed(samples.message())) == b""
    assert process.wait(60) == -signal.SIGKILL
    assert count(scene) == (1, int(done))
    process, port = victim("never")
    assert ask(port, samples.message(), samples.message()) == [ACCEPTED] * 2
    process.terminate()
    assert process.wait(60) == 0
    assert count(scene) == (1, 1)
    assert scene.messages() == [("traite", "AA", None)]


def test_what_a_killed_process_left_is_done_though_nobody_sends_it_again(scene: Scene, victim: Callable) -> None:
    scene.patient()
    process, port = victim("before-step")
    with contextlib.suppress(ConnectionError):
        raw(port, framed(samples.message()))
    assert process.wait(60) == -signal.SIGKILL
    with scene.store.session() as session:
        session.execute(update(Message).values(created_at=utcnow() - timedelta(minutes=2)))
        session.commit()
    assert scene.inbox.sweep() == 1
    assert scene.messages() == [("traite", "AA", None)]


def test_while_the_database_is_away_the_sender_is_told_to_come_again(
    scene: Scene, server: Any, database_url: str
) -> None:
    scene.patient()
    name = str(psycopg.conninfo.conninfo_to_dict(database_url)["dbname"])

    def away(*, gone: bool) -> None:
        with psycopg.connect(server.admin_url, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {not gone}')
            if gone:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

    with served(scene) as wire, MLLPClient("127.0.0.1", wire.port) as client:
        client.socket.settimeout(60)
        away(gone=True)
        try:
            refusal = samples.said(unframed(client.send_message(samples.message())))
            # Who connects now is not known yet, and is answered all the same.
            later = ask(wire.port, samples.message())
        finally:
            away(gone=False)
        assert (refusal[::2], later[0][::2]) == (("AR", "207"), ("AR", "207"))
        assert samples.said(unframed(client.send_message(samples.message()))) == ACCEPTED
    assert count(scene) == (1, 1)


# --- the whole program -------------------------------------------------------------------------------------------


def test_the_program_serves_the_port_for_a_partner_of_its_registry(
    scene: Scene, database_url: str, tmp_path: Path
) -> None:
    scene.patient()
    with scene.store.session() as session:
        session.query(PartnerCredential).delete()
        session.commit()
    port = free_port()
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")} | {
        "RCP_DATABASE_URL": database_url,
        "RCP_DATA_DIR": str(tmp_path),
        "RCP_MLLP_BIND": f"127.0.0.1:{port}",
        "RCP_LOG_FORMAT": "json",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", *arguments]
        return subprocess.run(command, env=ours, capture_output=True, text=True, timeout=120, check=False)

    added = run("partner", "add", "Labo X", "--mllp", "127.0.0.1")
    assert added.returncode == 0, added.stderr
    assert "mllp:127.0.0.1" in run("partner", "list").stdout
    assert run("partner", "add", "Labo Y", "--mllp", "127.0.0.1").returncode == 1
    told = run("check").stdout
    assert "mllp         répond" in told, told
    assert run("partner", "add", "Labo Z", "--mllp", "nulle-part.invalid").returncode == 0
    assert "Adresse introuvable pour un pair MLLP : nulle-part.invalid" in run("check").stdout
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--only", "mllp"], env=ours, stdout=log, stderr=log
        )
        try:
            assert wait_until(lambda: process.poll() is not None or _listens(port)), (tmp_path / "log").read_text()
            # The laboratory has no patient of its own here.
            assert ask(port, samples.message()) == [("AE", "PID^1^3", "207", "902")]
        finally:
            process.terminate()
        assert process.wait(60) == 0
    said = (tmp_path / "log").read_text()
    assert "mllp-ready" in said
    assert not {word for word in ("PAT-TROIS", "DOMINIQUE", "279035121518989", "000123456") if word in said}
    [kept] = scene.rows(Message)
    assert kept.sender == "PASSERELLE-RCP|CH-EXEMPLE"


def test_hostile_bytes_never_close_the_port(scene: Scene) -> None:
    scene.patient()
    content = framed(samples.message())
    with served(scene, silence_s=0.2) as wire:
        for at in range(0, len(content), len(content) // 11):
            raw(wire.port, content[:at] + b"\x00\xff\x1c\r" + content[at:])
        assert ask(wire.port, samples.message(MSH_10="RCP-FIN")) == [ACCEPTED]
        until(lambda: not wire._live())
