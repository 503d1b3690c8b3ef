"""A DICOM port in a process of its own, which a test kills; arguments: DATABASE BLOBS PORT WHEN COUNT.

``WHEN``: ``before-row`` (bytes durable, row not written), ``before-answer`` (row committed, answer not sent),
``before-report`` (a commitment was promised, its report not sent) or ``never``; it dies by SIGKILL at the COUNT-th
object or request.
"""

import itertools
import os
import signal
import sys
import time
from pathlib import Path

from gateway.dicom import storage
from gateway.dicom.services import Request
from gateway.dicom.storage import component
from gateway.exchange.blobs import open_store
from gateway.exchange.outbox import Outbox
from gateway.model.audit import AuditTrail
from gateway.model.store import Store
from gateway.rcp.imaging_arrivals import Arrivals
from gateway.rcp.step import DomainClock, Steps
from gateway.settings import Dicom, Settings
from gateway.transport import Address


def main() -> None:
    database, blobs_url, port, when, count = sys.argv[1:]
    seen = itertools.count(1)

    def die() -> None:
        if next(seen) == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    if when == "before-row":
        keep = Arrivals.keep
        Arrivals.keep = lambda *arguments: (die(), keep(*arguments))[1]
    elif when == "before-answer":
        commit = storage.Keeping.commit
        storage.Keeping.commit = lambda self: (commit(self), die())[0]
    elif when == "before-report":
        # The answer stands in the association's queue: its other thread sends it meanwhile.
        Request.leaves_within = lambda *_: (time.sleep(2), die())[1]
    blobs = open_store(blobs_url)
    steps = Steps(Store(database), DomainClock(), AuditTrail(b"x" * 32), Outbox(blobs), lambda *_: None)
    settings = Settings(data_dir=Path(), profile="prod", dicom=Dicom(bind=Address("127.0.0.1", int(port))))
    scp = component(settings, steps, blobs)
    signal.signal(signal.SIGTERM, lambda *_: (scp.stop(), os._exit(0)))
    scp.start()
    while True:
        time.sleep(0.1)


main()
