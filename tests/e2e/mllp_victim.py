"""An HL7 v2 port in a process of its own, which a test kills; arguments: DATABASE BLOBS PORT WHEN.

``WHEN``: ``before-step`` (kept, nothing done), ``before-answer`` (step committed, nothing said) or ``never``; it dies
by SIGKILL at its first message.
"""

import os
import signal
import sys
import time
from pathlib import Path

from gateway.exchange.blobs import open_store
from gateway.exchange.inbox import Inbox
from gateway.exchange.outbox import Outbox
from gateway.fhir.represent import Representer
from gateway.hl7v2.wire import component
from gateway.model.audit import AuditTrail
from gateway.model.store import Store
from gateway.rcp.step import DomainClock, Steps
from gateway.settings import Mllp, Settings
from gateway.transport import Address


def main() -> None:
    database, blobs_url, port, when = sys.argv[1:]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    process = Inbox.process
    if when == "before-step":
        Inbox.process = lambda *_: die()
    elif when == "before-answer":
        Inbox.process = lambda self, message_id: (process(self, message_id), die())[0]
    blobs = open_store(blobs_url)
    steps = Steps(Store(database), DomainClock(), AuditTrail(b"x" * 32), Outbox(blobs), Representer(blobs))
    settings = Settings(data_dir=Path(), mllp=Mllp(bind=Address("127.0.0.1", int(port))))
    wire = component(settings, steps, blobs)
    signal.signal(signal.SIGTERM, lambda *_: (wire.stop(), os._exit(0)))
    wire.start()
    while True:
        time.sleep(0.1)


main()
