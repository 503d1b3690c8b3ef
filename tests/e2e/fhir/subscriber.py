"""A subscriber's own server on loopback, and what its client registers: nothing of ours reads what arrives."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.loopback import free_port

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
TOPIC = "https://rcp.example.org/fhir/SubscriptionTopic/rcp-imagerie"


@dataclass
class Arrived:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def tree(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def said(self) -> dict[str, Any]:
        """What the first entry says: simple parameters by name, events as a list."""
        first = self.tree["entry"][0]["resource"]
        assert first["resourceType"] == "Parameters"
        found: dict[str, Any] = {"events": []}
        for one in first["parameter"]:
            if one["name"] == "notification-event":
                found["events"].append({part["name"]: _value(part) for part in one["part"]})
            else:
                found[one["name"]] = _value(one)
        return found


def _value(parameter: dict[str, Any]) -> Any:
    value = next(value for name, value in parameter.items() if name.startswith("value"))
    return value["reference"] if isinstance(value, dict) else value


@dataclass
class Subscriber:
    """A server; ``answer`` gives the status of each request, or does whatever a bad peer does."""

    url: str = ""
    arrived: list[Arrived] = field(default_factory=list)
    answer: Callable[[BaseHTTPRequestHandler], int] = lambda _: 200

    def events(self) -> list[Arrived]:
        return [one for one in self.arrived if one.said["type"] == "event-notification"]


@contextlib.contextmanager
def listening(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Subscriber]:
    """Serve a subscriber."""
    subscriber = Subscriber()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            subscriber.arrived.append(Arrived(self.path, dict(self.headers.items()), body))
            status = subscriber.answer(self)
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Serving(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A peer that hangs up is what some tests want."""

    served = Serving((host, 0), Handler)
    if context is not None:
        served.socket = context.wrap_socket(served.socket, server_side=True)
    subscriber.url = f"{'https' if context else 'http'}://{host}:{served.server_address[1]}/fhir/$rcp-notification"
    thread = threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield subscriber
    finally:
        served.shutdown()
        served.server_close()


def nobody() -> str:
    """An address of this machine that nobody listens at."""
    return f"http://127.0.0.1:{free_port()}/hook"


def subscription(endpoint: str, *filters: str, content: str = "id-only", **channel: Any) -> dict[str, Any]:
    """A Subscription in the guide's R4 form [spec fhir-fr 1.26, example Subscription-backport-rcp]."""
    tree: dict[str, Any] = {
        "resourceType": "Subscription",
        "meta": {"profile": [f"{BACKPORT}/backport-subscription"]},
        "status": "requested",
        "reason": "Images complètes",
        "criteria": TOPIC,
        "channel": {
            "type": "rest-hook",
            "endpoint": endpoint,
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": f"{BACKPORT}/backport-payload-content", "valueCode": content}]},
        }
        | channel,
    }
    if filters:
        tree["_criteria"] = {
            "extension": [{"url": f"{BACKPORT}/backport-filter-criteria", "valueString": one} for one in filters]
        }
    return tree


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS with a certificate of its own for a name, and the file of who trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "essai")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, secret)
    return context, cert
