"""The two frozen reports of the fixtures, and where the national rules stand, for every test of the report."""

from __future__ import annotations

import importlib.util
import os
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from gateway.exchange.blobs import BlobStore
from gateway.mssante.report_mail import Forms, ReportMail
from gateway.mssante.xdm_metadata import Sender
from gateway.rcp.pps_content import Contact, PlannedCare, PpsContent
from gateway.rcp.report import Press
from gateway.rcp.report_content import (
    CodedValue,
    Geriatric,
    Identifier,
    Organisation,
    OtherStage,
    PastTreatment,
    Person,
    QuotedReport,
    ReportContent,
    decode,
)

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures" / "report"


def content(name: str = "full") -> ReportContent:
    """``full`` says nearly everything, ``minimal`` the least that a meeting has."""
    return decode((FIXTURES / f"content-{name}.json").read_bytes())


def whole() -> ReportContent:
    """Give a report that says everything that the national model can hold: each of its eighteen sections."""
    full = content()
    patho, biologist = full.quoted[1].performer, full.quoted[2].performer
    unknown = Person(family="ODE", given="Lucie")
    ncit = "2.16.840.1.113883.3.26.1.1"
    stages = (
        OtherStage(name="NCCN", version="2.2026", value="Résécable d’emblée"),
        OtherStage(name="Stade de Valombre", value="II"),
    )
    return replace(
        full,
        labels=("Urgence", "Essai BILIOP"),
        board_comment="Séance commune avec la chirurgie.",
        motives=replace(full.motives, comment="Demande de second avis."),
        tumours=(
            replace(
                full.tumours[0],
                laterality=CodedValue("24028007", "2.16.840.1.113883.6.96", "droit"),
                other_stage="Borderline au scanner initial",
                other_stages=stages,
                comment="Relecture en cours.",
            ),
        ),
        phase=CodedValue("MED-244", "1.2.250.1.213.1.1.4.322", "Rechute du cancer"),
        phase_on="2026-10",
        phase_comment="Rechute dix mois après la chirurgie.",
        progression=True,
        progression_local=True,
        progression_regional=False,
        geriatric=Geriatric(score=11, tool="G8", on="2026-11-18"),
        past_treatments=(
            *full.past_treatments,
            PastTreatment(
                kind=CodedValue("C15632", ncit, "chimiothérapie"),
                state="en-cours",
                text="FOLFIRINOX, 4 cures",
                start="2026-06",
            ),
            PastTreatment(kind=CodedValue("C15313", ncit, "radiothérapie"), state="non-fait"),
        ),
        quoted=(
            *full.quoted,
            QuotedReport(
                kind="acp",
                conclusion="Relecture : même diagnostic.",
                done_from="2026-11-16",
                done_to="2026-11-18",
                performer=patho,
                author=unknown,
                sampler=unknown,
            ),
            QuotedReport(kind="gm", conclusion="BRCA1 et BRCA2 : pas de mutation.", performer=unknown),
            QuotedReport(
                kind="gm",
                conclusion="NTRK : analyse non réalisée.",
                done_from="2026",
                performer=biologist,
                author=patho,
                sampler=full.requester,
                remark="Prélèvement insuffisant.",
            ),
        ),
        file_comment="Imagerie relue en séance.",
        recourse_asked="Avis du centre de recours pancréas.",
        surveillance="Scanner à 3 mois.",
        supportive_care="Consultation de diététique.",
        recommended=("oncogeriatrie", "fertilite", "oncogenetique"),
        trial=True,
        trial_name="BILIOP-3 (fictif)",
        frame_comment="Hors référentiel pour la seconde ligne.",
        document_comment="Relu en séance.",
    )


def plan() -> PpsContent:
    """Give a personalised care plan that follows the full report and says one care of each class, done and to come."""
    report = content()
    ta, sct, ncit = "1.2.250.1.213.1.1.4.322", "2.16.840.1.113883.6.96", "2.16.840.1.113883.3.26.1.1"
    surgery = CodedValue("387713003", sct, "intervention chirurgicale")
    return PpsContent(
        document_id=Identifier("1.2.250.1.999.77.2.20261204.7.1"),
        set_id=Identifier("1.2.250.1.999.77.2.20261204.7"),
        version=1,
        written_at=datetime(2026, 12, 4, 11, 5, tzinfo=ZoneInfo("Europe/Paris")),
        report=report,
        author=report.coordinator,
        contacts=(
            Contact(role="reference", person=report.attendees[1].person),
            Contact(role="coordination", person=Person(family="BASTIDE", given="Nadia", civility="MME")),
            Contact(role="3c", organisation=Organisation(name="3C de Valombre", phone="05 56 00 12 40")),
        ),
        care=(
            PlannedCare(
                category="traitement",
                kind=surgery,
                text="duodéno-pancréatectomie céphalique",
                expected_from="2026-12",
                performer=report.attendees[1].person,
                comment="Hospitalisation la veille.",
            ),
            PlannedCare(
                category="traitement",
                kind=CodedValue("C15632", ncit, "chimiothérapie"),
                done=True,
                start="2026-11-27",
                end="2026-11-30",
            ),
            *(PlannedCare(category=name, kind=CodedValue(code, ta, code)) for name, code in _FIRST_OF_CLASS.items()),
        ),
        stopped=False,
        given_on="2026-12-05",
        patient_comment="Préfère être traitée près de Libourne.",
        notice="Vos données de santé sont couvertes par le secret médical.",
    )


_FIRST_OF_CLASS = {
    "effets-secondaires": "C20427",
    "mesure": "ORG-007",
    "suivi": "MED-091",
    "soins-support": "ORG-035",
    "accompagnement": "PAT-024",
}


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
