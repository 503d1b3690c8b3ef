"""Query and retrieval over TLS, both ways: findscu and storescp with certificates, getscu and movescu in a tunnel."""

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest

from gateway.demo.ct_phantom import DOMINIQUE
from gateway.settings import Address, Dicom, Tls
from tests.e2e.dicom.conftest import storescu
from tests.e2e.dicom.peers import data_sets, dcmtk, receiver, register

STUDY = f"StudyInstanceUID={DOMINIQUE.study_uid}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority, and certificates of it for this machine and for another one."""
    root = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=root)

    fresh = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *fresh, "-subj", "/CN=CA", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    for name, said in (("here", "IP:127.0.0.1"), ("other", "DNS:ailleurs.example")):
        openssl("req", *fresh, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (root / f"{name}.ext").write_text(f"subjectAltName={said}\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
    return root


@pytest.fixture
def secured(make_port, world, authority):
    """Our port over TLS, client certificates required; LECTEUR is reached over TLS."""
    world.session.commit()
    tls = Tls(certificate=authority / "here.pem", key=authority / "here.key", authorities=authority / "ca.pem")
    return make_port(profile="prod", dicom=Dicom(bind=Address("127.0.0.1", 0), tls=tls, tls_destinations=("LECTEUR",)))


def presenting(authority, name: str = "here") -> tuple[str, ...]:
    return ("+tls", str(authority / f"{name}.key"), str(authority / f"{name}.pem"), "+cf", str(authority / "ca.pem"))


@contextlib.contextmanager
def tunnel(port: int, authority):
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


def test_query_and_retrieval_over_tls(secured, authority, ct, session, world, tmp_path):
    with tunnel(secured.port, authority) as plain:
        assert storescu(plain, *ct).returncode == 0
        target = tmp_path / "got"
        target.mkdir()
        keys = ["QueryRetrieveLevel=STUDY", STUDY]
        assert dcmtk("getscu", plain, "-S", "+B", "-od", str(target), keys=keys).returncode == 0
        assert data_sets(target.iterdir()) == data_sets(ct)
        with receiver(tmp_path / "lecteur", "LECTEUR", *presenting(authority)) as reader:
            register(session, world.partner, "LECTEUR", reader.port)
            assert dcmtk("movescu", plain, "-S", "-aem", "LECTEUR", keys=keys).returncode == 0
            assert data_sets(reader.files) == data_sets(ct)
    result = dcmtk("findscu", secured.port, "-S", *presenting(authority), keys=[*keys, "PatientID"])
    assert result.returncode == 0, result.stdout
    assert "[000003]" in result.stdout


def test_a_destination_whose_certificate_names_another_host_gets_nothing(
    secured, authority, ct, session, world, tmp_path
):
    with (
        tunnel(secured.port, authority) as plain,
        receiver(tmp_path / "lecteur", "LECTEUR", *presenting(authority, "other")) as reader,
    ):
        assert storescu(plain, *ct).returncode == 0
        register(session, world.partner, "LECTEUR", reader.port)
        keys = ["QueryRetrieveLevel=STUDY", STUDY]
        assert dcmtk("movescu", plain, "-S", "-aem", "LECTEUR", keys=keys).returncode != 0
        assert reader.files == []


def test_a_destination_of_the_list_is_never_sent_to_in_the_clear(secured, authority, ct, session, world, tmp_path):
    with tunnel(secured.port, authority) as plain, receiver(tmp_path / "lecteur", "LECTEUR") as reader:
        assert storescu(plain, *ct).returncode == 0
        register(session, world.partner, "LECTEUR", reader.port)
        keys = ["QueryRetrieveLevel=STUDY", STUDY]
        assert dcmtk("movescu", plain, "-S", "-aem", "LECTEUR", keys=keys).returncode != 0
        assert reader.files == []


def test_without_its_certificate_nobody_asks(secured, world):
    result = dcmtk("findscu", secured.port, "-S", keys=["QueryRetrieveLevel=STUDY", STUDY])
    assert result.returncode != 0
