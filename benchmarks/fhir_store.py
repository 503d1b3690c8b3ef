"""FHIR: creates, reads, searches and transactions a second, each beside a limit of the same run.

Run: ``python benchmarks/fhir_store.py`` (``--help`` for its sizes; the whole takes half an hour). The gateway is
``rcp-gateway serve --only http`` on the embedded PostgreSQL with fsync on: one worker process, every middleware, access
predicate, signed token and audit trail; writes also with a worker for each processor (`RCP_HTTP_WORKERS`). Beside it
in the same run, over the same sockets and uvicorn:

* psycopg alone: the SQL statements of one real create, recorded on their way to the server and executed with fresh keys
  in transactions on as many connections from one process, nothing parsed, judged or built;
* the same application without token, access predicate and audit lines;
* a bare FastAPI application whose ``async def`` routes return the same bytes, made once.

Rounds alternate and the median is told; the load generator shares the processors. Ratios, not figures, travel between
machines.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import itertools
import json
import os
import random
import re
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psycopg
import uvicorn
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import Connection, event, insert, text
from starlette.responses import Response

from gateway.app import logs
from gateway.app.gateway import Gateway, open_gateway
from gateway.app.http import application
from gateway.fhir import document, keeping
from gateway.fhir.auth import ASSERTION_TYPE
from gateway.fhir.negotiation import MEDIA
from gateway.fhir.routes import always
from gateway.identifiers import uuid7
from gateway.model.audit import AuditFacts
from gateway.model.connections import Connections
from gateway.model.person import PatientRecord
from gateway.model.reads import Reads
from gateway.model.representation import TABLES
from gateway.model.store import Store, utcnow
from gateway.rcp import access, registry
from gateway.rcp.step import Step
from gateway.settings import Limits, Settings
from gateway.transport import Address
from gateway.web.authenticators import BEARER

CONNECTIONS = 16
#: Processes of the gateway where it has one for each processor.
WORKERS = os.cpu_count() or 1
DOMAIN = "https://chu-banc.example/ns/ipp"
CORE = "https://hl7.fr/ig/fhir/core"
SCOPES = "system/*.cruds"
#: Patients made one by one; the rest are copies of their rows with other letters in place of `_MARK`.
SEEDS = 10_000
#: Patients that bear one family name, at every size.
NAMESAKES = 10
_MARK = "QXAA"
_GIVEN = [
    a + b for a in ("Cam", "Dom", "Sac", "Max", "Al", "Ann", "Yan") for b in ("ille", "inique", "ha", "ence", "ex")
]


# Patients, none of whom exists


def letters(number: int, width: int = 4) -> str:
    """Write a number in capitals, so that names differ in their first letters."""
    text = ""
    for _ in range(width):
        number, digit = divmod(number, 26)
        text = chr(65 + digit) + text
    return text


def patient(number: int, family: str, mark: str = "") -> dict[str, Any]:
    """A patient as a hospital sends him: qualified INS of the test register, IPP, names, address, telephone."""
    ins = f"2{number % 100:02}{1 + number % 12:02}{number % 10**8:08}"
    return {
        "resourceType": "Patient",
        "meta": {"profile": [f"{CORE}/StructureDefinition/fr-core-patient-ins"]},
        "extension": [
            {
                "url": f"{CORE}/StructureDefinition/fr-core-identity-reliability",
                "extension": [
                    {
                        "url": "identityStatus",
                        "valueCoding": {"system": f"{CORE}/CodeSystem/fr-core-cs-v2-0445", "code": "VALI"},
                    }
                ],
            }
        ],
        "identifier": [
            {
                "use": "official",
                "type": {"coding": [{"system": f"{CORE}/CodeSystem/fr-core-cs-v2-0203", "code": "INS-NIR-TEST"}]},
                "system": "urn:oid:1.2.250.1.213.1.4.10",
                "value": f"{ins}{97 - int(ins) % 97:02}",
            },
            {
                "use": "usual",
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PI"}]},
                "system": DOMAIN,
                "value": f"{mark}{number:09}",
            },
        ],
        "active": True,
        "name": [{"use": "official", "family": family, "given": [_GIVEN[number % len(_GIVEN)], "Claude"]}],
        "telecom": [{"system": "phone", "value": f"06{number % 10**8:08}", "use": "mobile"}],
        "gender": "female" if number % 2 else "male",
        "birthDate": f"{1930 + number % 80}-{1 + number % 12:02}-{1 + number % 28:02}",
        "address": [{"line": ["1 rue de la Paix"], "city": "Lille", "postalCode": f"{59000 + number % 1000}"}],
    }


def fill(store: Store, partner: uuid.UUID, wanted: int) -> None:
    """Bring the database to so many patients without the API: records, and rows as `keep` writes them."""
    with store.engine.connect() as connection:
        run = connection.exec_driver_sql
        held = run("SELECT count(*) FROM fhir_patient WHERE id LIKE '019a%%'").scalar_one()
        if held >= wanted:
            return
        run("SET maintenance_work_mem = '512MB'; SET statement_timeout = 0")
        dropped = run(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('fhir_patient', 'patient_record') "
            "AND indexdef NOT LIKE 'CREATE UNIQUE%%'"
        ).all()
        for name, _ in dropped:
            run(f"DROP INDEX {name}")
        if held == 0:
            seed(connection, partner)
        for copy in range(max(1, held // SEEDS), wanted // SEEDS):
            multiply(connection, copy)
        for _, made in dropped:
            run(made)
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT")
        run("VACUUM ANALYZE")
        connection.invalidate()  # it has settings of its own


def seed(connection: Connection, partner: uuid.UUID) -> None:
    now = utcnow()
    table = TABLES["Patient"]
    rows, records = [], []
    for number in range(SEEDS):
        family = _MARK + letters(number // NAMESAKES)
        tree = patient(number, family, _MARK)
        key = uuid.UUID(f"019a0000-0000-7000-8000-{number:012}")
        rows.append(
            {
                "id": str(key),
                "version": 1,
                "body": document.encode(document.with_meta(tree, identity=str(key), version=1, updated=now)),
                "current": True,
                "updated_at": now,
                "partner_id": partner,
                "record_id": key,
                "root_kind": "PatientRecord",
                "root_id": key,
                **keeping.columns(tree),
            }
        )
        value = f"{_MARK}{number:09}"
        records.append({"id": key, "partner_id": partner, "system": DOMAIN, "value": value, "birth_family": family})
    connection.execute(insert(PatientRecord), records)
    connection.execute(insert(table), rows)


def multiply(connection: Connection, number: int) -> None:
    """Copy the seeds once, under other names, identifiers and ids."""
    mark = "QX" + letters(number, 2)

    changes = {_MARK: mark, _MARK.lower(): mark.lower(), "019a0000-": f"019a{number:04}-"}

    def renamed(expression: str) -> str:
        for old, new in changes.items():
            expression = f"replace({expression}, '{old}', '{new}')"
        return expression

    for table in ("patient_record", "fhir_patient"):
        columns = connection.exec_driver_sql(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass "
            "AND attnum > 0 AND NOT attisdropped AND attname <> 'xid'",
            (table,),
        ).all()
        chosen = {
            name: f"convert_to({renamed(f'convert_from({name}, {chr(39)}UTF8{chr(39)})')}, 'UTF8')"
            if kind == "bytea"
            else f"{renamed(f'{name}::text')}::{kind}"
            if kind in {"text", "text[]", "uuid", "tsvector", "jsonb"} and name != "partner_id"
            else name
            for name, kind in columns
        }
        connection.execute(
            text(
                f"INSERT INTO {table} ({', '.join(chosen)}) SELECT {', '.join(chosen.values())} FROM {table} ".replace(
                    ":", "\\:"
                )
                + "WHERE id\\:\\:text LIKE '019a0000-%'"
            )
        )


# The load generator: one connection, one request after another, nothing parsed that need not be


@dataclass
class Load:
    """What one run of the generator saw."""

    rate: float
    median_ms: float
    answered: int


_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass
class _Run:
    requests: Iterator[bytes]
    wanted: frozenset[int]
    until: float
    count: int | None
    latencies: list[float] = field(default_factory=list)
    sent: int = 0

    def next(self) -> bytes | None:
        if (self.count is not None and self.sent >= self.count) or time.perf_counter() >= self.until:
            return None
        self.sent += 1
        return next(self.requests, None)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, done: asyncio.Future[None]) -> None:
        self.run, self.done = run, done
        self.buffer = bytearray()
        self.needed = 0
        self.begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.ask()

    def ask(self) -> None:
        request = self.run.next()
        if request is None:
            self.transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self.begun = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.needed:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            status = int(self.buffer[9:12])
            if status not in self.run.wanted:
                self.done.set_exception(RuntimeError(f"{status}: {bytes(self.buffer[:1500])!r}"))
                self.transport.close()
                return
            said = _LENGTH.search(self.buffer, 0, end)
            self.needed = end + 4 + (int(said.group(1)) if said else 0)
        if len(self.buffer) >= self.needed:
            self.run.latencies.append(time.perf_counter() - self.begun)
            self.buffer.clear()
            self.needed = 0
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


def load(
    port: int,
    requests: Iterator[bytes],
    *,
    seconds: float = 1e9,
    count: int | None = None,
    wanted: Sequence[int] = (200, 201),
) -> Load:
    """Ask from `CONNECTIONS` connections at once, for a time or a number of requests."""
    run = _Run(requests, frozenset(wanted), time.perf_counter() + seconds, count)

    async def drive() -> None:
        loop = asyncio.get_running_loop()
        waiting = []
        for _ in range(CONNECTIONS):
            done = loop.create_future()
            await loop.create_connection(lambda done=done: _Connection(run, done), "127.0.0.1", port)
            waiting.append(done)
        await asyncio.gather(*waiting)

    gc.collect()
    gc.disable()
    begun = time.perf_counter()
    with asyncio.Runner(loop_factory=uvicorn.Config(None).get_loop_factory()) as runner:  # type: ignore[arg-type] # only its loop
        runner.run(drive())
    spent = time.perf_counter() - begun
    gc.enable()
    return Load(len(run.latencies) / spent, statistics.median(run.latencies) * 1000, len(run.latencies))


def request(method: str, path: str, token: str, body: bytes = b"", headers: str = "") -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Accept: application/fhir+json\r\n{headers}"
    )
    if body:
        head += f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


# Servers


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def served(app: Any, port: int) -> None:
    """Serve under the options of `gateway.app.components`."""
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False, proxy_headers=False, ws="none")


def constant_app(folder: Path) -> FastAPI:
    """The ceiling: the same bytes from bare ``async def`` routes."""
    app = FastAPI(openapi_url=None)

    def add(name: str, body: bytes) -> None:
        @app.get(f"/{name}")
        async def same() -> Response:
            return Response(body, 200, media_type=MEDIA)

    for path in folder.iterdir():
        add(path.name, path.read_bytes())
    return app


def open_app(settings: Settings, port: int) -> None:
    """The same application without token, access predicate and audit lines."""

    async def untold(_: Reads, *lines: AuditFacts) -> None:
        del lines

    Reads.record = untold  # type: ignore[method-assign] # what is measured is the route without it
    with open_gateway(settings) as gateway:
        app = application(gateway)
        app.state.authenticators._by_scheme[BEARER] = always(access.SYSTEM)  # noqa: SLF001 - the same
        served(app, port)


@dataclass
class Bench:
    """The running servers and the client that is known to the gateway."""

    settings: Settings
    store: Store
    partner: uuid.UUID
    client: str
    key: ECKey
    gateway: int = 0
    all: int = 0
    open: int = 0
    constant: int = 0
    worker: int = 0

    def token(self) -> str:
        """A new access token: they live for minutes."""
        where = f"{self.settings.public_url}/oauth/token"
        now = int(time.time())
        claims = {"iss": self.client, "sub": self.client, "aud": where, "exp": now + 240, "jti": str(uuid.uuid4())}
        asked = {
            "grant_type": "client_credentials",
            "scope": SCOPES,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": jwt.encode(
                {"alg": "ES384", "kid": self.key.kid}, claims, self.key, algorithms=["ES384"]
            ),
        }
        return str(httpx.post(where, data=asked, timeout=60).raise_for_status().json()["access_token"])


@contextmanager
def child(arguments: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if process.poll() is not None:
                    sys.exit(f"{arguments} ended")
                time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def settings_of(folder: Path, port: int) -> Settings:
    return Settings(
        data_dir=folder,
        http_bind=Address("127.0.0.1", port),
        public_url=f"http://127.0.0.1:{port}",
        limits=Limits(requests_per_minute=10_000_000),
    )


def environment_of(settings: Settings, *, workers: int = 1) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RCP_")}
    return ours | {
        "RCP_DATA_DIR": str(settings.data_dir),
        "RCP_HTTP_BIND": str(settings.http_bind),
        "RCP_PUBLIC_URL": settings.public_url,
        Limits.variable("requests_per_minute"): str(settings.limits.requests_per_minute),
        "RCP_HTTP_WORKERS": str(workers),
        "RCP_LOG_FORMAT": "json",
    }


# psycopg alone

Statements = list[tuple[str, Any]]


@contextmanager
def inside(bench: Bench, note: Callable[..., None] | None = None) -> Iterator[FastAPI]:
    """The application in this process, for whom the client is known without a proof."""
    with open_gateway(bench.settings) as gateway:
        app = application(gateway)
        caller = access.Caller(kind=access.CallerKind.CLIENT, partner_id=bench.partner, scopes=frozenset({SCOPES}))
        app.state.authenticators._by_scheme[BEARER] = always(caller)  # noqa: SLF001 - the caller without the proof
        if note is not None:
            event.listen(gateway.store.engine, "checkout", note)
        yield app


def recorded(bench: Bench) -> tuple[Statements, dict[str, Any]]:
    """The statements of one create, and the patient who was made."""
    seen: Statements = []

    class Noting(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **more: Any) -> Any:
            seen.append((query, params))
            return super().execute(query, params, **more)

    def note(connection: Any, *_: Any) -> None:
        connection.cursor_factory = Noting

    async def create(app: FastAPI) -> dict[str, Any]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=bench.settings.public_url) as client:
            for body in itertools.islice(patients(), 3):  # SQLAlchemy asks the server for its types at first
                seen.clear()
                answer = await client.post("/fhir/Patient", content=body, headers={"content-type": "application/json"})
                assert answer.status_code == 201, answer.text
        return dict(answer.json())

    with inside(bench, note) as app:
        made = asyncio.run(create(app))
    return seen, made


def patients() -> Iterator[bytes]:
    """Patients whom nobody sent yet."""
    start = int.from_bytes(os.urandom(4), "big") * 1000
    for number in itertools.count(start):
        yield document.encode(patient(number, "BANC" + letters(number % 26**4)))


_KEY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def renewed(statements: Statements, made: dict[str, Any], partner: uuid.UUID) -> Statements:
    """The same statements about another patient: what was made for the first is made anew, everywhere alike."""
    fresh: dict[str, str] = {str(partner): str(partner)}
    for identifier in made["identifier"]:
        said = identifier["value"]
        fresh[said] = f"{secrets.randbelow(10 ** len(said)):0{len(said)}}"
    words = re.compile("|".join((_KEY.pattern, *(identifier["value"] for identifier in made["identifier"]))))

    def again(text: str) -> str:
        return words.sub(lambda found: fresh.setdefault(found.group(), str(uuid7())), text)

    def value_of(value: Any) -> Any:
        match value:
            case uuid.UUID():
                return uuid.UUID(again(str(value)))
            case str():
                return again(value)
            case bytes():
                return again(value.decode("latin-1")).encode("latin-1")
            case dict():
                return {name: value_of(one) for name, one in value.items()}
            case list():
                return [value_of(one) for one in value]
            case _:
                return value

    return [(statement, value_of(parameters)) for statement, parameters in statements]


def replay(bench: Bench, recording: tuple[Statements, dict[str, Any]], seconds: float, expected: float) -> float:
    """Transactions a second of psycopg alone, one thread a connection."""
    amount = int(expected * seconds * 6 / CONNECTIONS) + 20
    ready = [[renewed(*recording, bench.partner) for _ in range(amount)] for _ in range(CONNECTIONS)]
    done = [0] * CONNECTIONS
    faults: list[BaseException] = []
    gate = threading.Barrier(CONNECTIONS + 1)

    def run(number: int) -> None:
        try:
            with psycopg.connect(bench.store.dsn) as connection, connection.cursor() as cursor:
                gate.wait()
                until = time.perf_counter() + seconds
                for transaction in ready[number]:
                    for statement, parameters in transaction:
                        cursor.execute(statement.encode(), parameters)
                    connection.commit()
                    done[number] += 1
                    if time.perf_counter() >= until:
                        return
        except BaseException as fault:  # noqa: BLE001 - told by the main thread
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    gate.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return sum(done) / (time.perf_counter() - begun)


# What is measured


def creates(token: str, number: int) -> Iterator[bytes]:
    ready = [request("POST", "/fhir/Patient", token, body) for body in itertools.islice(patients(), number)]
    return iter(ready)


def conditional(token: str, number: int) -> Iterator[bytes]:
    """Creates that are never written together: each asks first whether the patient is there."""

    def asked(body: bytes) -> bytes:
        own = json.loads(body)["identifier"][-1]
        header = f"If-None-Exist: identifier={own['system']}|{own['value']}\r\n"
        return request("POST", "/fhir/Patient", token, body, header)

    return iter([asked(body) for body in itertools.islice(patients(), number)])


def transactions(token: str, number: int, entries: int = 100) -> Iterator[bytes]:
    made = patients()

    def bundle() -> bytes:
        listed = [
            {
                "fullUrl": f"urn:uuid:{uuid.uuid4()}",
                "resource": json.loads(next(made)),
                "request": {"method": "POST", "url": "Patient"},
            }
            for _ in range(entries)
        ]
        return document.encode({"resourceType": "Bundle", "type": "transaction", "entry": listed})

    return iter([request("POST", "/fhir", token, bundle()) for _ in range(number)])


def seeded(size: int) -> Iterator[tuple[int, int]]:
    """Numbers of seeds and of their copies, at random."""
    chance = random.Random(7)  # noqa: S311 - which patient is asked for is no secret
    while True:
        yield chance.randrange(SEEDS), chance.randrange(size // SEEDS)


def reads(token: str, size: int) -> Iterator[bytes]:
    for seed_number, copy in seeded(size):
        yield request("GET", f"/fhir/Patient/019a{copy:04}-0000-7000-8000-{seed_number:012}", token)


#: Questions whose answer is as long at every size, and one whose answer grows while its page does not.
QUESTIONS: dict[str, Callable[[int, str], str]] = {
    "identifier, 1 hit": lambda number, mark: f"identifier={DOMAIN}|{mark}{number:09}",
    "family, 10 hits": lambda number, mark: f"family={mark}{letters(number // NAMESAKES)}",
    "family and year of birth, 1 hit": lambda number, mark: (
        f"family={mark}{letters(number // NAMESAKES)}&birthdate={1930 + number % 80}"
    ),
    "first 10 of a common given name": lambda number, _: f"given={_GIVEN[number % len(_GIVEN)]}&_count=10",
}
TEN_HITS = "family, 10 hits"


def searches(token: str, size: int, question: str = TEN_HITS) -> Iterator[bytes]:
    for seed_number, copy in seeded(size):
        asked = QUESTIONS[question](seed_number, "QX" + letters(copy, 2))
        yield request("GET", f"/fhir/Patient?{asked}", token)


def mixed(token: str, size: int) -> Iterator[bytes]:
    """Nine reads, nine searches and two creates in twenty."""
    made, read, searched = patients(), reads(token, size), searches(token, size)
    for number in itertools.count():
        place = number % 20
        if place < 2:
            yield request("POST", "/fhir/Patient", token, next(made))
        else:
            yield next(read) if place < 11 else next(searched)


def resident_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process, now and at its highest."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(said["VmRSS"].split()[0]) / 1024, int(said["VmHWM"].split()[0]) / 1024


class Table:
    """Rates of several rounds, told by their medians."""

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = {}

    def add(self, name: str, rate: float) -> float:
        """Note one round."""
        self.rates.setdefault(name, []).append(rate)
        print(f"    {name:<44} {rate:9.0f}", file=sys.stderr)
        return rate

    def __getitem__(self, name: str) -> float:
        return statistics.median(self.rates[name])

    def line(self, name: str, limit: str, wanted: float) -> None:
        """Print a rate beside its limit."""
        ratio = self[name] / self[limit]
        verdict = "reached" if ratio >= wanted else "MISSED"
        rates = f"{self[name]:6.0f}/s beside {self[limit]:6.0f}/s"
        print(f"  {name:<32} {rates}  {ratio:5.2f} of {limit} ({wanted} wanted: {verdict})")


ALONE = "psycopg alone, the same statements"
CREATE = "create"
SINGLE = "create, a transaction each"
CREATE_ALL = f"create, {WORKERS} workers"
TRANSACTION = "patients in transactions of 100"
TRANSACTION_ALL = f"the same, {WORKERS} workers"
READ, READ_OPEN, READ_SAME = "read", "read without token, access and audit", "bare route, a patient's bytes"
SEARCH, SEARCH_SAME = "search, 10 hits", "bare route, the bundle's bytes"


def rounds(bench: Bench, given: argparse.Namespace) -> Table:
    table = Table()
    recording = recorded(bench)
    print(f"{len(recording[0])} statements a create", file=sys.stderr)
    expected, seconds, size = 1000.0, given.seconds, given.patients
    for _ in range(given.rounds):
        token = bench.token()
        if "create" in given.only:
            amount = int(expected * seconds * 2) + 100
            expected = table.add(CREATE, load(bench.gateway, creates(token, amount), seconds=seconds).rate)
            table.add(CREATE_ALL, load(bench.all, creates(token, 2 * amount), seconds=seconds).rate)
            table.add(ALONE, replay(bench, recording, seconds, expected))
        if "transaction" in given.only:
            amount = int(expected * seconds * 2) + 100
            table.add(SINGLE, load(bench.gateway, conditional(token, amount), seconds=seconds).rate)
            amount = int(expected * seconds * 8 / 100) + 40
            table.add(TRANSACTION, 100 * load(bench.gateway, transactions(token, amount), seconds=seconds).rate)
            if "create" in given.only:
                table.add(TRANSACTION_ALL, 100 * load(bench.all, transactions(token, amount), seconds=seconds).rate)
        if "read" in given.only:
            table.add(READ, load(bench.gateway, reads(token, size), seconds=seconds).rate)
            table.add(READ_OPEN, load(bench.open, reads(token, size), seconds=seconds).rate)
            same = itertools.repeat(request("GET", "/patient", token))
            table.add(READ_SAME, load(bench.constant, same, seconds=seconds).rate)
        if "search" in given.only:
            table.add(SEARCH, load(bench.gateway, searches(token, size), seconds=seconds).rate)
            same = itertools.repeat(request("GET", "/bundle", token))
            table.add(SEARCH_SAME, load(bench.constant, same, seconds=seconds).rate)
    return table


def told(table: Table, given: argparse.Namespace) -> None:
    if "create" in given.only:
        table.line(CREATE, ALONE, 0.5)
        table.line(CREATE_ALL, ALONE, 0.5)
    if "transaction" in given.only and "create" in given.only:
        table.line(TRANSACTION, SINGLE, 3)
        table.line(TRANSACTION, CREATE, 3)
        table.line(TRANSACTION_ALL, CREATE_ALL, 3)
    if "read" in given.only:
        table.line(READ, READ_OPEN, 0.5)
        table.line(READ, READ_SAME, 0.2)
    if "search" in given.only:
        table.line(SEARCH, SEARCH_SAME, 0.12)


def endured(bench: Bench, given: argparse.Namespace) -> None:
    """Memory of the worker over many requests; a token lives for minutes, so they are asked in parts."""
    print(f"memory of the worker, MB: {resident_mb(bench.worker)[0]:.0f} at the start")
    left, part = given.requests, 20_000
    while left > 0:
        load(bench.gateway, mixed(bench.token(), given.patients), count=min(part, left))
        left -= part
    now, highest = resident_mb(bench.worker)
    verdict = "reached" if highest < 300 else "MISSED"
    print(f"  after {given.requests} requests {now:.0f}, {highest:.0f} at most; below 300 wanted: {verdict}")


class Curve:
    """Cost of a search from few patients to many."""

    def __init__(self, bench: Bench, given: argparse.Namespace) -> None:
        self.bench, self.seconds = bench, given.seconds
        self.found: dict[int, list[str]] = {}

    def measure(self, size: int) -> None:
        """Bring the database to a size and ask."""
        fill(self.bench.store, self.bench.partner, size)
        for question in QUESTIONS:
            load(self.bench.gateway, searches(self.bench.token(), size, question), seconds=1)
            token = self.bench.token()
            runs = [load(self.bench.gateway, searches(token, size, question), seconds=self.seconds) for _ in range(3)]
            run = sorted(runs, key=lambda one: one.rate)[1]
            cell = f"{run.median_ms:.1f} ms ({run.rate:.0f}/s), {self.pages(size, question):.0f} pages"
            self.found.setdefault(size, []).append(cell)
            print(f"    {size:<10} {question:<33} {cell:>20}", file=sys.stderr)

    def pages(self, size: int, question: str, asked: int = 20) -> float:
        """Pages of the database that such a search looks at, which no load of the machine changes."""
        statements: list[tuple[str, list[Any]]] = []
        fetch = Connections.fetch

        async def noted(self: Connections, text: str, values: list[Any], *, seconds: float) -> list[Any]:
            if not text.startswith("EXPLAIN"):  # the planner's guess of a total looks at no page of the table
                statements.append((text, values))
            return await fetch(self, text, values, seconds=seconds)

        async def ask(app: FastAPI) -> float:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=self.bench.settings.public_url) as client:
                for line in itertools.islice(searches("", size, question), asked):
                    (await client.get(line.split()[1].decode())).raise_for_status()
            server = await asyncpg.connect(
                self.bench.store.dsn, server_settings={"plan_cache_mode": "force_custom_plan"}
            )
            try:
                plans = [
                    await server.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *values)
                    for text, values in statements
                ]
            finally:
                await server.close()
            told = [json.loads(plan)[0]["Plan"] for plan in plans]
            return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in told) / asked

        Connections.fetch = noted  # type: ignore[method-assign] # put back below
        try:
            with inside(self.bench) as app:
                return asyncio.run(ask(app))
        finally:
            Connections.fetch = fetch  # type: ignore[method-assign] # as it was

    def tell(self) -> None:
        """Print the table."""
        print(
            f"searches by patients in the database: median ms on {CONNECTIONS} connections, how many a second, "
            "pages looked at"
        )
        print(f"  {'':<32}" + "".join(f"{size:>32,}" for size in self.found))
        for question, *cells in zip(QUESTIONS, *self.found.values(), strict=True):
            print(f"  {question:<32}" + "".join(f"{cell:>32}" for cell in cells))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seconds", type=float, default=4.0, help="of one line in one round")
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--patients", type=int, default=100_000)
    asked.add_argument("--curve", default="10000,100000,1000000", help="sizes of the curve")
    asked.add_argument("--requests", type=int, default=200_000, help="of the memory line")
    asked.add_argument("--only", default="create,transaction,read,search,memory,curve")
    asked.add_argument("--folder", type=Path, help="data directory to keep and use again")
    asked.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = asked.parse_args()
    logs.configure("info" if given.serve else "error", "json")
    if given.serve:
        name, port = given.serve[0], int(given.serve[1])
        if name == "constant":
            served(constant_app(given.folder), port)
        else:
            open_app(settings_of(given.folder, port), port)
        return
    with ExitStack() as stack:
        root = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcp-bench-")))
        measure(root.absolute(), given, stack)


def admitted(gateway: Gateway, root: Path) -> Bench:
    """Make a hospital known to the gateway; its key stays beside the data."""
    kept = root / "client.json"
    if not kept.exists():
        kept.write_text(json.dumps(ECKey.generate_key("P-384", {"kid": "banc"}).as_dict(private=True)))
    key = ECKey.import_key(json.loads(kept.read_text()))

    def known(step: Step) -> tuple[uuid.UUID, str]:
        facts = registry.PartnerFacts(
            name="CHU du banc",
            patient_domains=(DOMAIN,),
            fhir_scopes=tuple(SCOPES.split()),
            jwks={"keys": [key.as_dict(private=False)]},
        )
        partner = registry.add_partner(step, facts)
        step.session.flush()
        return partner.id, str(registry.client_of(step.session, partner.id))

    partner, client = gateway.steps.run(access.SYSTEM, known)
    return Bench(gateway.settings, gateway.store, partner, client, key)


def measure(root: Path, given: argparse.Namespace, stack: ExitStack) -> None:
    root.mkdir(parents=True, exist_ok=True)
    settings = settings_of(root, free_port())
    bench = admitted(stack.enter_context(open_gateway(settings, migrate=True)), root)
    sizes = [int(size) for size in given.curve.split(",")] if "curve" in given.only else []
    fill(bench.store, bench.partner, min(given.patients, *sizes, given.patients))
    bench.gateway, bench.open, bench.constant = settings.http_bind.port, free_port(), free_port()
    same = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rcp-bench-")))
    serve = [sys.executable, "-m", "gateway", "serve", "--only", "http"]
    bench.worker = stack.enter_context(child(serve, bench.gateway, environment_of(settings)))
    if "create" in given.only:
        bench.all = free_port()
        others = dataclasses.replace(settings, http_bind=Address("127.0.0.1", bench.all))
        stack.enter_context(child(serve, bench.all, environment_of(others, workers=WORKERS)))
    curve = Curve(bench, given)
    for size in sizes:
        if size <= given.patients:
            curve.measure(size)
    fill(bench.store, bench.partner, given.patients)
    token = {"Authorization": f"Bearer {bench.token()}"}
    for name, path in (("patient", reads("", SEEDS)), ("bundle", searches("", SEEDS))):
        where = next(path).split()[1].decode()
        answer = httpx.get(settings.public_url + where, headers=token).raise_for_status()
        (same / name).write_bytes(answer.content)
    this = [sys.executable, __file__]
    for name, port, folder in (("constant", bench.constant, same), ("open", bench.open, root)):
        arguments = [*this, "--folder", str(folder), "--serve", name, str(port)]
        stack.enter_context(child(arguments, port, environment_of(settings)))
    print(f"{given.patients:,} patients, {CONNECTIONS} connections, median of {given.rounds} rounds")
    told(rounds(bench, given), given)
    if "memory" in given.only:
        endured(bench, given)
    for size in sizes:
        if size > given.patients:
            curve.measure(size)
    if sizes:
        curve.tell()


if __name__ == "__main__":
    main()
