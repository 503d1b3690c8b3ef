"""The two frozen reports of the fixtures, and where the national rules stand, for every test of the report."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from gateway.exchange.blobs import BlobStore
from gateway.mssante.report_mail import Forms, ReportMail
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp.report import Press
from gateway.rcp.report_content import Organisation, ReportContent, decode

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures" / "report"


def content(name: str = "full") -> ReportContent:
    """``full`` says nearly everything, ``minimal`` the least that a meeting has."""
    return decode((FIXTURES / f"content-{name}.json").read_bytes())


def press(blobs: BlobStore) -> Press:
    """What renders and mails reports, as a gateway of its own organisation does."""
    sender = Sender(
        source_id="1.2.250.1.999.77",
        organisation=Organisation(name="3C d’essai", idnst="1000000001"),
        application="rcp-gateway",
        version="0",
        publisher="essai",
    )
    mails = ReportMail(address="rcp@3c.mssante.fr", nil="000000", name="RCP")
    return Press(forms=Forms(sender), mails=mails, blobs=blobs)


def cisis() -> Path | None:
    """Folder of the national rules, or None when they are not on this machine."""
    found = Path(os.environ.get("CISIS_DIR") or ROOT.parent / "shared" / "conformance" / "cisis")
    return found if (found.parent / "validate_cda.py").is_file() else None


def national_validator() -> ModuleType:
    """Module that runs the national rules; it lives beside them and is never copied."""
    folder = cisis()
    assert folder is not None
    name = "validate_cda"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, folder.parent / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
