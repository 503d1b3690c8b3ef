"""Peers that query, retrieve and receive: dcmtk's tools as processes, with what they say and what they keep."""

import contextlib
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sqlalchemy.orm import Session

from gateway.demo.ct_phantom import DOMINIQUE, Phantom
from gateway.model.partner import Partner, PartnerCredential
from tests.e2e.dicom.conftest import AE_TITLE, need
from tests.loopback import free_port, wait_until

#: A patient of another hospital, and his study.
FOREIGN = Phantom(
    patient_id="778899",
    issuer="https://chu-y.example/ns/ipp",
    patient_name="PAT-NEUF^ALEX",
    birth_date=date(1961, 1, 2),
    sex="M",
    accession_number="ACC-Y-1",
    study_uid=DOMINIQUE.study_uid + ".900",
)


def data_set(path: Path) -> bytes:
    """Bytes of a Part 10 file after its File Meta Information, found by its group length element."""
    whole = path.read_bytes()
    return whole[144 + int.from_bytes(whole[140:144], "little") :]


def data_sets(paths) -> set[bytes]:
    return {data_set(path) for path in paths}


@dataclass
class Receiver:
    """dcmtk's storescp, which keeps what comes bit by bit."""

    ae_title: str
    port: int
    root: Path
    process: subprocess.Popen

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.root.iterdir() if path.suffix != ".log")


@contextlib.contextmanager
def receiver(root: Path, ae_title: str, *options: str) -> Iterator[Receiver]:
    root.mkdir()
    port = free_port()
    log = (root / "storescp.log").open("w")
    command = [need("storescp"), "-v", "-aet", ae_title, "-od", str(root), "+B", *options, str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        assert wait_until(lambda: _listens(port)), (root / "storescp.log").read_text()
        yield Receiver(ae_title, port, root, process)
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def _listens(port: int) -> bool:
    found = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip())


def register(session: Session, partner: Partner, ae_title: str, port: int = 104, **details) -> None:
    """Register one more application of an organisation on this machine."""
    where = {"host": "127.0.0.1", "port": port} | details
    session.add(PartnerCredential(partner_id=partner.id, kind="aet", value=ae_title, details=where))
    session.commit()


def other_hospital(session: Session, world) -> Partner:
    """A second hospital of the same network, with a patient domain and a PACS of its own: CHUY_PACS."""
    partner = Partner(name=f"CHU Y {uuid.uuid4()}", network_id=world.network.id, patient_domains=[FOREIGN.issuer])
    session.add(partner)
    session.flush()
    register(session, partner, "CHUY_PACS")
    return partner


def dcmtk(tool: str, port: int, *options: str, keys: Sequence[str] = (), calling: str = AE_TITLE, timeout: float = 60):
    """Run findscu, movescu or getscu; all that it says stands in ``stdout``."""
    command = [need(tool), "-v", "-aet", calling, "-aec", "RCPGATEWAY", *options]
    for key in keys:
        command += ["-k", key]
    return subprocess.run(
        [*command, "127.0.0.1", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )


def presenting(authority: Path, name: str = "here") -> tuple[str, ...]:
    """dcmtk's options for TLS with a certificate of ours, trusting our authority."""
    return ("+tls", str(authority / f"{name}.key"), str(authority / f"{name}.pem"), "+cf", str(authority / "ca.pem"))


@contextlib.contextmanager
def tunnel(port: int, authority: Path) -> Iterator[int]:
    """A plain port of this machine that leads to a TLS one, for tools that speak none."""
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    context.load_cert_chain(authority / "here.pem", authority / "here.key")
    server = socket.create_server(("127.0.0.1", 0))

    def pump(source, target) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                far = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()
