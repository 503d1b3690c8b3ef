"""Mails a second over one connection to an SMTP server on loopback, beside a plain smtplib loop over the same bytes.

Below it the way of a notification from end to end over the same server: planned, composed and kept in the outbox, each
in a step of its own; claimed, sent and its outcome recorded with the register and the resources of FHIR, by one thread
without jobs and by the worker; and a plain loop over those very bytes.

Run: ``python benchmarks/mail_out.py``. The server is postfix's own ``smtp-sink`` where it is
installed (the fastest there is: what is measured is us), else aiosmtpd in a process of its own. Lines take turns, so
that a busy machine slows all of them; the ratio is that of the medians.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import shutil
import smtplib
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import planner
import structlog
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from gateway.exchange.blobs import open_store
from gateway.exchange.delivery import Deliveries
from gateway.exchange.jobs import Worker
from gateway.exchange.outbox import Outbox, Outcome
from gateway.fhir.represent import Representer
from gateway.model.audit import AuditTrail
from gateway.model.embedded import EmbeddedServer
from gateway.model.message import Message
from gateway.model.store import Store
from gateway.mssante.account import Account
from gateway.mssante.channel import MssanteChannel
from gateway.mssante.connection import Fate
from gateway.mssante.envelope import Attachment, Mail, render
from gateway.mssante.submission import Keeping, Submission
from gateway.rcp import mail_events, notification
from gateway.rcp.step import Steps
from gateway.settings import MailServer

SENDER, RECIPIENT = "rcp@ch-exemple.mssante.example", "paul.durant@medecin.mssante.example"
TURNS, BATCH = 12, 50
#: When the notifications of the planner's world are due; the first so many go without jobs, the others by the worker.
DUE = datetime(2026, 3, 5, 9, 0, tzinfo=UTC)
ALONE, TOGETHER = 100, 200


def mail(attached: int) -> bytes:
    """A notification, or a document mail with so many bytes attached."""
    document = (
        {
            "attachments": (Attachment("IHE_XDM.zip", "application/zip", bytes(range(256)) * (attached // 256)),),
            "cda_codes": ("34794-8",),
            "ins_qualified": True,
        }
        if attached
        else {}
    )
    return render(
        Mail(
            key="banc",
            sender_address=SENDER,
            recipient_address=RECIPIENT,
            date=datetime(2026, 11, 24, 7, 0, tzinfo=UTC),
            subject="XDM/1.0/DDM+Compte rendu" if attached else "Médecin – Notification préalable RCP",
            body="Bonjour,\n\nLe dossier sera examiné en réunion.\n" * 12,
            nil="0",
            **document,
        )
    ).content


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def swallow(port: int) -> None:
    """Run aiosmtpd, which keeps nothing."""
    from aiosmtpd.smtp import SMTP

    class Sink:
        async def handle_DATA(self, _server: object, _session: object, _envelope: object) -> str:  # noqa: N802 (aiosmtpd's name)
            return "250 2.0.0 Ok"

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(Sink(), data_size_limit=None), "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def sink() -> Iterator[tuple[str, int]]:
    """A server that takes everything, in a process of its own."""
    port = free_port()
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program:
        command = [program, "-u", "nobody", f"127.0.0.1:{port}", "100"]
        process = subprocess.Popen(command)
        name, stop = "smtp-sink", process.terminate
    else:
        child = multiprocessing.get_context("spawn").Process(target=swallow, args=(port,), daemon=True)
        child.start()
        name, stop = "aiosmtpd", child.terminate
    try:
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield name, port
    finally:
        stop()


@contextmanager
def plain(port: int, content: bytes) -> Iterator[Callable[[], object]]:
    """The standard library's own loop."""
    with smtplib.SMTP("127.0.0.1", port, "[127.0.0.1]") as smtp:
        smtp.ehlo()
        yield lambda: smtp.sendmail(SENDER, [RECIPIENT], content)


@contextmanager
def ours(port: int, content: bytes, keeping: Keeping) -> Iterator[Callable[[], object]]:
    """`Submission.send`."""
    submission = Submission(Account(MailServer("127.0.0.1", port, "plain")), keeping=keeping)

    def work() -> None:
        attempted = submission.send(content, sender=SENDER, recipient=RECIPIENT, envelope_id="rcp.banc")
        if attempted.fate is not Fate.DELIVERED:
            raise RuntimeError(attempted.code)

    try:
        yield work
    finally:
        submission.close()


def measured(port: int, content: bytes) -> dict[str, tuple[float, float]]:
    """Mails a second of each way by the clock and by our own processor, by the median of its turns."""
    with (
        plain(port, content) as loop,
        ours(port, content, Keeping()) as kept,
        ours(port, content, Keeping(messages=1)) as single,
    ):
        ways = {"smtplib loop": loop, "Submission.send": kept, "a connection each": single}
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, work in ways.items():
                start, own = time.perf_counter(), time.process_time()
                for _ in range(BATCH):
                    work()
                took, own = time.perf_counter() - start, time.process_time() - own
                rates[name].append((BATCH / took, BATCH / own))
    return {
        name: (statistics.median(rate for rate, _ in found), statistics.median(rate for _, rate in found))
        for name, found in rates.items()
    }


def clocked(name: str, count: int, work: Callable[[], object]) -> None:
    """Run it once; print how many a second, and what each cost of this process's processor."""
    start, own = time.perf_counter(), time.process_time()
    work()
    took, own = time.perf_counter() - start, time.process_time() - own
    print(f"{name:48}{count / took:8.0f}   {1000 * own / count:6.2f} ms of own processor each")


def from_end_to_end(port: int) -> None:
    """Plan, keep, claim, send and record, each mail a notification of one dossier."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="rcp-mail-out-") as folder, EmbeddedServer(Path(folder) / "pg") as url:
        store = Store(url)
        store.migrate()
        planner.populate(store, ALONE + TOGETHER, 0)
        blobs, trail = open_store(f"file://{folder}/blobs"), AuditTrail(secrets.token_bytes(32))
        representer = Representer()
        steps = Steps(store, SimpleNamespace(now=lambda: DUE), trail, Outbox(blobs), representer)
        clocked(
            "planned, composed, kept",
            ALONE + TOGETHER,
            lambda: notification.plan_due(steps, planner.LETTERS),
        )

        def settled(session: Session, message: Message) -> None:
            representer.keep(session, [message, *mail_events.after_delivery(session, message)], {})

        channel = MssanteChannel(Submission(Account(MailServer("127.0.0.1", port, "plain"))))
        deliveries = Deliveries(store, blobs, trail, [channel], settled=settled)
        with store.session() as session:
            waiting = session.scalars(select(Message).order_by(Message.id)).all()
            keys = [str(one.id) for one in waiting[:ALONE]]
            done = "DELETE FROM procrastinate_jobs WHERE args ->> 'message_id' = ANY(:keys)"
            session.execute(text(done), {"keys": keys})
            session.commit()

        def one_by_one() -> None:
            for one in waiting[:ALONE]:
                if deliveries.attempt(one.id) is not Outcome.DELIVERED:
                    raise RuntimeError(one.id)

        clocked("claimed, sent, recorded: one thread", ALONE, one_by_one)
        clocked("claimed, sent, recorded: the worker, 4 at once", TOGETHER, Worker(store, deliveries.attempt).drain)
        channel.close()
        with store.session() as session:
            states = session.scalars(select(Message.state)).all()
        if set(states) != {"envoye"} or len(states) != ALONE + TOGETHER:
            raise RuntimeError(sorted(set(states)))
        with smtplib.SMTP("127.0.0.1", port, "[127.0.0.1]") as smtp:

            def loop() -> None:
                for one in waiting:
                    smtp.sendmail(one.sender or "", [one.recipient or ""], one.content or b"")

            clocked("limit: a plain smtplib loop, the same bytes", len(waiting), loop)
        store.close()


def main() -> None:
    with sink() as (name, port):
        print(f"{name:36}{'mails a second':>16}{'ratio':>8}{'ratio by own processor':>26}")
        for attached in (0, 150_000):
            content = mail(attached)
            found = measured(port, content)
            limit, processor = found["smtplib loop"]
            for way, (rate, own) in found.items():
                label = f"{len(content) // 1000} kB: {way}"
                print(f"{label:36}{rate:16.0f}{rate / limit:8.2f}{own / processor:26.2f}")
        print("\nfrom end to end" + f"{'mails a second':>41}")
        from_end_to_end(port)


if __name__ == "__main__":
    main()
