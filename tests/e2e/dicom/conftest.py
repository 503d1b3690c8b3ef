"""The DICOM wire whole: dcmtk and Orthanc outside, PostgreSQL, blobs and HTTP inside."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.dicom import dicomweb
from gateway.dicom.drawing import Drawing
from gateway.dicom.query import Images
from gateway.dicom.scp import Scp
from gateway.dicom.storage import component
from gateway.dicom.together import GroupKeeper
from gateway.errors import GatewayError
from gateway.fhir import outcome as fhir_outcome
from gateway.fhir.represent import Representer
from gateway.model.partner import PartnerCredential
from gateway.model.reads import Reads
from gateway.rcp.access import Caller
from gateway.rcp.step import Steps
from gateway.settings import Dicom, Limits, Settings
from gateway.transport import Address, Tls
from gateway.web.authenticators import BEARER, Authenticators
from gateway.web.background import served
from tests import world as worlds
from tests.loopback import free_port, wait_until

AE_TITLE = "CHUX_PACS"


@pytest.fixture
def session(store) -> Iterator[Session]:
    with store.session() as session:
        yield session


@pytest.fixture
def world(session) -> worlds.World:
    """A hospital whose PACS calls itself CHUX_PACS from this machine."""
    made = worlds.build(session, on=datetime.now(worlds.PARIS).date() + timedelta(days=30))
    session.add(
        PartnerCredential(
            partner_id=made.partner.id, kind="aet", value=AE_TITLE, details={"host": "127.0.0.1", "port": 104}
        )
    )
    session.commit()
    return made


@pytest.fixture
def represented(make_steps, blobs) -> Steps:
    return make_steps(represent=Representer(blobs))


@pytest.fixture
def make_port(represented, blobs, tmp_path) -> Iterator[Callable[..., Scp]]:
    running = []

    def make(**more) -> Scp:
        settings = Settings(data_dir=tmp_path, **{"dicom": Dicom(bind=Address("127.0.0.1", 0)), **more})
        port = component(settings, represented, blobs)
        port.start()
        running.append(port)
        return port

    yield make
    for port in running:
        port.stop()


@pytest.fixture
def port(make_port, world) -> Scp:
    return make_port(profile="prod")


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Path:
    """A folder with an authority, and certificates: good ones, and one for each way to be none."""
    root = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=root)

    rsa = ("-newkey", "rsa:2048", "-nodes")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "stranger"):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *curve, "-subj", f"/CN={name}", "-days", "2", *files)
    for name, key, said, days, by in (
        ("here", rsa, "subjectAltName=IP:127.0.0.1", "2", "ca"),
        ("other", rsa, "subjectAltName=DNS:ailleurs.example", "2", "ca"),
        ("another", curve, "subjectAltName=DNS:autre-pacs.example", "2", "ca"),
        ("second", curve, "subjectAltName=IP:127.0.0.1", "2", "ca"),
        ("expired", curve, "subjectAltName=IP:127.0.0.1", "-1", "ca"),
        ("server", curve, "extendedKeyUsage=serverAuth", "2", "ca"),
        ("foreign", curve, "subjectAltName=IP:127.0.0.1", "2", "stranger"),
    ):
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (root / f"{name}.ext").write_text(f"{said}\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial"),
            *("-days", days, "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
    return root


@pytest.fixture
def secured(make_port, world, authority) -> Scp:
    """Our port over TLS, client certificates required; LECTEUR is reached over TLS."""
    world.session.commit()
    tls = Tls(certificate=authority / "here.pem", key=authority / "here.key", authorities=authority / "ca.pem")
    return make_port(profile="prod", dicom=Dicom(bind=Address("127.0.0.1", 0), tls=tls, tls_destinations=("LECTEUR",)))


@pytest.fixture
def ct(tmp_path) -> list[Path]:
    return write_series(DOMINIQUE, tmp_path / "ct")


def need(command: str) -> str:
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"{command} is not installed (make test installs it as root)")
    return found


def storescu(port: int, *files: Path, calling: str = AE_TITLE, called: str = "RCPGATEWAY", option: str | None = None):
    """Send with dcmtk; what it says of each status stands in ``stdout``."""
    titles = ["-aet", calling, "-aec", called]
    command = [need("storescu"), "-v", *([option] if option else []), *titles, "127.0.0.1", str(port)]
    return subprocess.run(
        [*command, *map(str, files)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


@dataclass
class Web:
    """DICOMweb over HTTP; a token is the key of a caller."""

    url: str
    callers: dict[str, Caller]

    def get(self, path: str, who: str = "ehr", accept: str = "*/*") -> tuple[int, dict[str, str], bytes]:
        return self.asked(urllib.request.Request(self.url + path, headers=self._headers(who, accept)))

    def post(
        self, path: str, body: bytes, kind: str, who: str = "ehr", accept: str = "*/*"
    ) -> tuple[int, dict[str, str], bytes]:
        headers = {**self._headers(who, accept), "Content-Type": kind}
        return self.asked(urllib.request.Request(self.url + path, body, headers))

    def _headers(self, who: str, accept: str) -> dict[str, str]:
        return {"Accept": accept, "Authorization": f"Bearer {who}"}

    def asked(self, request: urllib.request.Request) -> tuple[int, dict[str, str], bytes]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, dict(refusal.headers), refusal.read()

    def json(self, path: str, who: str = "ehr"):
        status, _, body = self.get(path, who, "application/dicom+json")
        return (json.loads(body) if status == 200 else None) if status != 204 else []


@pytest.fixture
def web_limits() -> Limits:
    return Limits()


@pytest.fixture(scope="session")
def _drawing() -> Iterator[Drawing]:
    shared = Drawing()
    yield shared
    shared.close()


@pytest.fixture
def drawing(_drawing) -> Drawing:
    """Drawing processes that stay for the next test, without what they were too small for in the one before."""
    _drawing._refused.clear()
    return _drawing


@pytest.fixture
def web(store, trail, blobs, represented, web_limits, drawing) -> Iterator[Web]:
    port = free_port()
    callers: dict[str, Caller] = {}
    url = f"http://127.0.0.1:{port}/dicom-web"
    app = FastAPI()
    app.state.authenticators = Authenticators()

    async def by_token(request: Request) -> Caller | None:
        return callers.get(request.headers.get("authorization", "").removeprefix("Bearer "))

    app.state.authenticators.register(BEARER, by_token)
    keeper = GroupKeeper(represented, blobs)
    app.include_router(
        dicomweb.router(
            Images(Reads(store, trail)), blobs, base_url=url, drawing=drawing, keeper=keeper, limits=web_limits
        )
    )

    @app.exception_handler(GatewayError)
    def refuse(request: Request, error: GatewayError):
        status, _, _ = fhir_outcome.answer(error)
        return JSONResponse({"code": error.code, "text": error.text}, status)

    with served(app, port=port):
        yield Web(url, callers)


@dataclass
class Orthanc:
    http: str
    dicom_port: int

    def post(self, path: str, body: bytes | dict) -> dict:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.http + path, data), timeout=60) as answer:
            return json.loads(answer.read())

    def get(self, path: str) -> list | dict:
        with urllib.request.urlopen(self.http + path, timeout=60) as answer:
            return json.loads(answer.read())

    def put(self, path: str, body: dict) -> None:
        request = urllib.request.Request(self.http + path, json.dumps(body).encode(), method="PUT")
        urllib.request.urlopen(request, timeout=30).close()


@contextmanager
def running_orthanc(root: Path, **more: object) -> Iterator[Orthanc]:
    """Start Orthanc with its DICOMweb plugin; ``more`` are settings of its own."""
    binary = need("Orthanc")
    http, dicom = free_port(), free_port()
    (root / "orthanc.json").write_text(
        json.dumps(
            {
                "Name": "PACS",
                "StorageDirectory": str(root / "storage"),
                "IndexDirectory": str(root / "storage"),
                "HttpPort": http,
                "DicomPort": dicom,
                "DicomAet": AE_TITLE,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
                **more,
            }
        )
    )
    log = (root / "log").open("w")
    process = subprocess.Popen(
        [binary, str(root / "orthanc.json")], stdout=log, stderr=log, env={**os.environ, "LC_ALL": "C"}
    )
    try:
        server = Orthanc(f"http://127.0.0.1:{http}", dicom)

        def answers() -> bool:
            try:
                urllib.request.urlopen(server.http + "/system", timeout=1).close()
            except urllib.error.HTTPError:
                return True  # it wants to know who asks
            except OSError:
                return False
            return True

        assert wait_until(answers), (root / "log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server
