"""What describes an object costs bounded memory, whatever stands in it: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Reads one document from its input under the default limits; prints what its memory rose by, in MiB, and the refusal.
READER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from gateway.dicom.described import Described
from gateway.dicom.multipart import Reader
from gateway.errors import GatewayError
from gateway.settings import Limits

class Nowhere:
    sink = None
    def write(self, piece): ...
    def close(self): ...
    def answered(self): ...
    def finish(self):
        from gateway.dicom.command import Answer
        return Answer()

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10

kind = sys.argv[1]
body = b"--b\\r\\nContent-Type: " + kind.encode() + b"\\r\\n\\r\\n" + sys.stdin.buffer.read() + b"\\r\\n--b--\\r\\n"
with ThreadPoolExecutor(2) as pool:
    how = (lambda _: Nowhere(), pool, lambda _: None, lambda _: None)
    upload = Described(Reader("b"), *how, kind=kind, blobs=None, limits=Limits())
    Path("/proc/self/clear_refs").write_text("5")
    before, refusal = peak(), None
    try:
        for start in range(0, len(body), 1 << 20):
            upload.take(body[start : start + (1 << 20)])
        upload.finish(b"")
    except GatewayError as error:
        refusal = str(error)
    print(peak() - before, refusal or len(upload.laid))
"""
JSON, XML = "application/dicom+json", "application/dicom+xml"
NAMED = {
    "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
    "00080018": {"vr": "UI", "Value": ["1.2.3"]},
}
#: A byte less than the default limit of the metadata leaves room for what stands around.
LENGTH = (16 << 20) - 4096


def filled(unit: str, many: int) -> str:
    return ",".join([unit] * many)


def values(unit: str, vr: str, many: int) -> bytes:
    told = json.dumps([{**NAMED, "00081140": {"vr": vr, "Value": ["?"]}}])
    return told.replace('"?"', filled(unit, many)).encode()


def native(unit: str, many: int) -> bytes:
    return f"<NativeDicomModel>{unit * many}</NativeDicomModel>".encode()


#: Each as long as the metadata of a request may be, or with as many values as one object may have.
WORST = {
    "numbers, long": (JSON, values("1", "FD", LENGTH // 2)),
    "objects, long": (JSON, f"[{filled('{}', LENGTH // 3)}]".encode()),
    "attributes, long": (XML, native("<a " + " ".join(f'a{one}=""' for one in range(100)) + "/>", LENGTH // 800)),
    "numbers, many": (JSON, values("1", "SV", 990_000)),
    "members, many": (JSON, ('[{"0":0' + "".join(f',"{one:x}":[]' for one in range(330_000)) + "}]").encode()),
    "attributes, many": (XML, native("<a " + " ".join(f'a{one}=""' for one in range(100)) + "/>", 9_900)),
    "one text": (JSON, values(f'"\N{PILE OF POO}{"a" * (LENGTH - 200)}"', "UT", 1)),
}


@pytest.mark.parametrize("name", WORST)
def test_a_description_takes_bounded_memory(name):
    """Without a bound of the values 16 MiB of numbers took 1200 MiB."""
    kind, document = WORST[name]
    done = subprocess.run([sys.executable, "-c", READER, kind], input=document, capture_output=True, check=True)
    grown, told = done.stdout.decode().split(" ", 1)
    assert int(grown) < 280
    if name.endswith("long"):
        assert "RCP_LIMIT_STOW_METADATA_VALUES" in told
