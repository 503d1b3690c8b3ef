"""The command line: statuses, refusals in one sentence, and the process tree that `serve` supervises."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

import gateway
from gateway.__main__ import cli, main
from gateway.app.gateway import open_gateway
from gateway.errors import GatewayError
from gateway.exchange.outbox import Outgoing
from gateway.model.imaging import Instance, Series, Study, StudyDossier
from gateway.model.message import Message
from gateway.model.partner import PartnerCredential
from gateway.rcp.access import SYSTEM
from gateway.rcp.mailing import announced
from gateway.settings import load
from tests.loopback import PATIENCE_S, free_port
from tests.world import build


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run one command in this process, with a data directory of its own."""
    for name in [name for name in os.environ if name.startswith("RCP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RCP_DATA_DIR", str(tmp_path / "donnees"))
    monkeypatch.setenv("RCP_LOG_LEVEL", "error")

    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(cli, list(arguments), env=environment)

    return invoke


def test_help_names_every_command(run) -> None:
    told = run("--help").output
    commands = (
        "serve",
        "demo",
        "migrate",
        "check",
        "partner",
        "network",
        "plan",
        "replay",
        "send-images",
        "import-annuaire",
        "audit",
        "reindex",
    )
    assert [name for name in commands if name not in told] == []


def test_migrate_says_what_it_did_and_twice_is_no_error(run) -> None:
    first, second = run("migrate"), run("migrate")
    assert (first.exit_code, second.exit_code) == (0, 0)
    newest = max(path.name[:4] for path in (Path(gateway.__file__).parent / "model/migrations/versions").glob("0*.py"))
    assert first.output == f"Base migrée : vide → {newest}.\n"
    assert second.output == f"Base à jour (révision {newest}).\n"


def test_every_fault_of_the_configuration_is_told(run) -> None:
    told = run("migrate", RCP_CLOK="x", RCP_HTTP_BIND="nulle part")
    assert told.exit_code == 1
    assert "RCP_CLOCK" in told.output
    assert "RCP_HTTP_BIND" in told.output


def test_wrong_usage_is_2(run) -> None:
    assert run("serve", "--only", "telex").exit_code == 2


def test_the_registry_keeps_what_it_is_told_and_refuses_a_private_key(run, tmp_path: Path) -> None:
    network = run(
        "network",
        "add",
        "dcc-a",
        "--name",
        "DCC A",
        "--base-url",
        "https://rcp.dcc-a.example",
        "--contact",
        "3c@a.example",
    )
    assert network.exit_code == 0, network.output
    assert "dcc-a" in run("network", "list").output
    public = tmp_path / "jwks.json"
    key = {name: value for name, value in _ec_key().items() if name != "d"}
    public.write_text(json.dumps({"keys": [key]}))
    added = run(
        *("partner", "add", "CHU X", "--network", "dcc-a", "--patient-domain", "https://chu-x.example/ns/ipp"),
        *("--fhir-scopes", "system/Patient.crus", "--jwks", str(public), "--aet", "PACSX@127.0.0.1:11113"),
    )
    assert added.exit_code == 0, added.output
    assert "CHU X" in run("partner", "list").output
    public.write_text(json.dumps({"keys": [_ec_key()]}))
    with pytest.raises(GatewayError):
        raise run("partner", "add", "CHU Y", "--jwks", str(public)).exception or AssertionError("accepted")
    assert run("partner", "revoke", "CHU X").exit_code == 0
    assert "CHU X" not in run("partner", "list").output


def _ec_key() -> dict[str, str]:
    from joserfc.jwk import ECKey

    return ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384", "kid": "essai"}).as_dict(private=True)


def test_a_refusal_is_one_french_sentence_and_status_1(run, monkeypatch, capsys) -> None:
    run("migrate")
    monkeypatch.setattr(sys, "argv", ["rcp-gateway", "partner", "revoke", "Personne"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("rcp-gateway : ")
    assert told.count("\n") == 1


def test_the_trail_is_verified_and_a_message_is_replayed(run) -> None:
    run("migrate")
    outgoing = Outgoing(channel="mssante", kind="M1", key="essai", content=b"octets", recipient="a@exemple.mssante.fr")
    with open_gateway(load()) as gateway:
        kept = gateway.steps.run(SYSTEM, lambda step: step.post(outgoing).id)
        with gateway.store.session() as session:
            session.get_one(Message, kept).state = "parque"
            session.commit()
    again = run("replay", str(kept))
    assert again.exit_code == 0
    assert "a@exemple.mssante.fr" in again.output
    with open_gateway(load()) as gateway, gateway.store.session() as session:
        assert session.get_one(Message, kept).state == "en-attente"
    intact = run("audit", "verify")
    assert (intact.exit_code, intact.output) == (0, "Piste d’audit intacte.\n")
    assert run("reindex").exit_code == 0


def test_a_study_is_put_into_the_outbox_once(run) -> None:
    run("migrate")
    with open_gateway(load()) as gateway, gateway.store.session() as session:
        world = build(session)
        dossier = world.dossier()
        study = Study(partner_id=world.partner.id, study_instance_uid="1.2.3", state="rattache")
        session.add(study)
        session.flush()
        series = Series(study_id=study.id, series_instance_uid="1.2.3.1")
        session.add_all([series, StudyDossier(study_id=study.id, dossier_id=dossier.id, basis="ipp", author="essai")])
        session.flush()
        session.add(
            Instance(
                partner_id=world.partner.id,
                series_id=series.id,
                sop_instance_uid="1.2.3.1.1",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256="0" * 64,
                size_bytes=1,
                dicom_json=b"{}",
            )
        )
        where = {"host": "127.0.0.1", "port": 104}
        session.add(PartnerCredential(partner_id=world.partner.id, kind="aet", value="ARCHIVE", details=where))
        session.commit()
    first, second = run("send-images", "1.2.3", "ARCHIVE"), run("send-images", "1.2.3", "ARCHIVE")
    assert (first.exit_code, second.output) == (0, first.output)
    assert first.output.startswith("Étude dans la file d’envoi, pour ARCHIVE : message ")
    for wrong in (("1.2.4", "ARCHIVE"), ("1.2.3", "PERSONNE")):
        assert run("send-images", *wrong).exit_code == 1
    with open_gateway(load()) as gateway, gateway.store.session() as session:
        [kept] = session.scalars(select(Message)).all()
        assert (kept.channel, kept.kind, kept.recipient, kept.state) == ("dicom", "etude", "ARCHIVE", "en-attente")
        assert first.output.endswith(f"message {kept.id}.\n")


def test_a_parked_mail_of_a_change_is_replayed_while_it_is_true_only(run) -> None:
    run("migrate")
    with open_gateway(load()) as gateway:
        with gateway.store.session() as session:
            world = build(session)  # its session is on 19 March 2026
            dossier = world.dossier()
            session.commit()
            posted = Outgoing(
                channel="mssante",
                kind="M1c",
                key="essai",
                content=b"octets",
                recipient="a@exemple.mssante.fr",
                recipient_id=world.treating.id,
                dossier_id=dossier.id,
                session_id=world.meeting.id,
                details={"annonce": announced(dossier)},
            )
        kept = gateway.steps.run(SYSTEM, lambda step: step.post(posted).id)
        with gateway.store.session() as session:
            session.get_one(Message, kept).state = "parque"
            session.commit()
    late = run("replay", str(kept), RCP_CLOCK="2026-03-19T14:00+01:00")
    assert isinstance(late.exception, GatewayError)
    assert late.exception.code == "renvoi-perime"
    with open_gateway(load()) as gateway, gateway.store.session() as session:
        assert session.get_one(Message, kept).state == "parque"
    assert run("replay", str(kept), RCP_CLOCK="2026-03-19T13:00+01:00").exit_code == 0


def test_the_plan_is_told_without_being_done(run) -> None:
    run("migrate")
    assert run("plan", "--dry-run", "--at", "2026-03-17T08:00+01:00").exit_code == 0
    assert run("plan", "--at", "2026-03-17T08:00+01:00").exit_code == 2
    assert run("plan", "--dry-run", "--at", "2026-03-17T08:00").exit_code == 2
    unsent = run("plan")
    assert isinstance(unsent.exception, GatewayError)
    assert "RCP_MSSANTE_ADDRESS" in unsent.exception.text


def test_check_tells_each_peer_and_fails_when_one_is_away(run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused at once
        away = f"imaps://rcp:secret@127.0.0.1:{taken.getsockname()[1]}"
        told = run("check", RCP_MSSANTE_IMAP_URL=away)
    assert told.exit_code == 1
    lines = dict(line.split(maxsplit=1) for line in told.output.splitlines())
    assert lines["base"] == "répond"
    assert lines["fichiers"] == "répond"
    assert "ne répond pas" in lines["imap"]


def test_check_reads_what_the_dicom_port_would_refuse(run) -> None:
    digits = "0" * 64
    assert run("partner", "add", "CHU X", "--aet", f"PACSX@127.0.0.1:104,sha256:{digits}").exit_code == 0
    [told] = [line for line in run("check").output.splitlines() if line.startswith("dicom")]
    assert ("RCP_DICOM_TLS_CA" in told, "PACSX" in told) == (True, True)
    assert run("partner", "revoke", "CHU X").exit_code == 0
    assert run("partner", "add", "CHU Y", "--aet", "PACSY@nulle-part.invalid:104").exit_code == 0
    [told] = [line for line in run("check").output.splitlines() if line.startswith("dicom")]
    assert "nulle-part.invalid" in told


def test_check_counts_the_connections_of_several_processes(run) -> None:
    """The embedded server lets 200 in, 3 of them kept for its owner; a process asks for 34 and 20 at most."""
    enough = run("check", RCP_HTTP_WORKERS="4", RCP_DICOM_WORKERS="3")
    assert "processus" in enough.output
    assert "connexions" not in enough.output
    [told] = [line for line in run("check", RCP_DICOM_WORKERS="10").output.splitlines() if line.startswith("processus")]
    assert ("234" in told, "197" in told) == (True, True)


# -- serve


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The whole process tree on free ports, ready."""
    with _serving(tmp_path) as tree:
        yield tree


@contextlib.contextmanager
def _serving(tmp_path: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    environment = _environment(tmp_path / "donnees", f"http://127.0.0.1:{free_port()}", **variables)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "gateway", "serve"], env=environment, stdout=log, stderr=log)
        try:
            url = environment["RCP_PUBLIC_URL"]
            _wait(lambda: _ready(url), (tmp_path / "log").read_text)
            yield process, url
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(60)


def _environment(data: Path, url: str, **variables: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
    return ours | {
        "RCP_DATA_DIR": str(data),
        "RCP_HTTP_BIND": url.removeprefix("http://"),
        "RCP_PUBLIC_URL": url,
        "RCP_DICOM_BIND": f"127.0.0.1:{free_port()}",
        "RCP_MLLP_BIND": f"127.0.0.1:{free_port()}",
        "RCP_LOG_LEVEL": "warning",
        **variables,
    }


def _ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health/ready", timeout=60).status_code == 200
    return False


def _wait(happens: Callable[[], bool], otherwise: Callable[[], str] = str, within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def _components(process: subprocess.Popen[bytes]) -> dict[str, psutil.Process]:
    found = {}
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):
            command = child.cmdline()
            if "--only" in command:
                found[command[command.index("--only") + 1]] = child
    return found


def test_a_dead_component_comes_back_and_sigterm_ends_all(serving) -> None:
    process, url = serving
    before = _components(process)
    assert set(before) == {"http", "dicom", "mllp", "worker"}
    before["http"].kill()
    _wait(lambda: (found := _components(process).get("http")) is not None and found.pid != before["http"].pid)
    _wait(lambda: _ready(url))
    everybody = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    _gone, alive = psutil.wait_procs(everybody, timeout=60)
    assert alive == []


def test_no_component_outlives_a_killed_supervisor(serving) -> None:
    process, _url = serving
    everybody = list(_components(process).values())
    process.kill()
    _gone, alive = psutil.wait_procs(everybody, timeout=60)
    assert alive == []


def test_several_processes_answer_on_one_port_count_together_and_replace_each_other(tmp_path: Path) -> None:
    with _serving(tmp_path, RCP_HTTP_WORKERS="2") as (process, url):
        _wait(lambda: len(_listeners(process, url)) == 2)
        before = _listeners(process, url)
        counted = _counted(url)
        for _ in range(60):  # each its own connection: the kernel gives them to one process or the other
            assert httpx.get(f"{url}/health/live", timeout=60).status_code == 200
        _wait(lambda: _counted(url) == counted + 60)  # an answer is counted once it has left
        other = subprocess.run(
            [sys.executable, "-m", "gateway", "serve"],
            env=_environment(tmp_path / "autre", url, RCP_HTTP_WORKERS="2"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (other.returncode, "ne peut pas être écoutée" in other.stderr) == (1, True)
        next(iter(before)).kill()
        _wait(lambda: len(found := _listeners(process, url)) == 2 and found != before)
        assert all(httpx.get(f"{url}/health/live", timeout=60).status_code == 200 for _ in range(20))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def _listeners(process: subprocess.Popen[bytes], url: str) -> set[psutil.Process]:
    """Children that listen on the port of an address."""
    port = int(url.rpartition(":")[2])
    found = set()
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):
            if any(one.laddr.port == port and one.status == "LISTEN" for one in child.net_connections()):
                found.add(child)
    return found


def _counted(url: str) -> int:
    told = httpx.get(f"{url}/metrics", timeout=60).text
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in told.splitlines()
        if line.startswith("rcp_http_requests_total{") and 'route="/health/live"' in line
    )
