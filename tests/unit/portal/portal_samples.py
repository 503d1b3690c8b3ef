"""One sample of each screen, filled with fictitious people; the unit tests and the look-at-it script share it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.model.meeting import Rcp
from gateway.portal import fiche_form, report_form, settings_form
from gateway.portal import views as v
from gateway.portal.sign_in_pages import SituationChoice
from gateway.rcp import pps_draft
from gateway.rcp.fiche import FicheRules, Statement
from gateway.rcp.rcp_settings import known
from gateway.rcp.report_draft import DraftExamination, DraftTreatment, ReportDraft

PARIS = ZoneInfo("Europe/Paris")
START = datetime(2023, 5, 11, 18, 30, tzinfo=PARIS)
NOW = datetime(2023, 5, 9, 14, 58, tzinfo=PARIS)

RCP = Rcp(
    notification={"active": True, "fermetures": ["2026-12-24"]},
    holidays="metropole",
    webconference={"lien": "https://visio.example.fr/rcp-digestif"},
    fiche={"obligatoires": ["tumeur.t", "etat.oms"], "etiquettes": ["Pancréas", "Recours"], "organes": ["76752008"]},
)
PLAN = {
    "traitement": Statement(
        value=[{"type": "C15632", "texte": "6 cycles", "etat": "prevu", "prevu_de": "2023-06"}], source="compte-rendu"
    ),
    "suivi": Statement(value=[{"type": "MED-091", "etat": "prevu"}], source="compte-rendu"),
    "contacts": Statement(value=[{"role": "3c", "structure": "3C fictif"}], source="compte-rendu"),
}
PLAN_PARTS = (
    v.PlanPart(
        "Programme thérapeutique et de suivi",
        (("Traitement (prévu)", "Chimiothérapie – 6 cycles (prévu à partir du 06/2023)"), ("Commentaire", "À jeun.")),
    ),
    v.PlanPart("Statut du document", (("Statut du document", "Version 1, approuvée"),)),
)
QUALIFIED = v.Badge("INS qualifiée", "success")
PATIENT = v.Patient(
    family="PATIENT-ESSAI",
    given="Jeanne Marie",
    birth_family="DUPRÉ-FICTIF",
    sex="F",
    sex_label="Féminin",
    birth_date="01/03/1965",
    age_label="58 ans",
    birth_place="Bordeaux (33063)",
    ins="2 65 03 33 063 001 97",
    ins_badge=QUALIFIED,
    numbers=(("IPP (CHU fictif de Bordeaux)", "0081234567"),),
)
HOSTILE = v.Patient(
    family="<script>alert(1)</script>",
    given='"><img src=x onerror=alert(2)>',
    sex="M",
    sex_label="Masculin",
    birth_date="31/01/1950",
    ins_badge=v.Badge("INS récupérée, non qualifiée", "warning"),
)
SLOT = v.Slot(
    rcp="Tumeurs digestives – Clinique Tivoli fictive",
    start=START,
    end=START.replace(hour=20),
    place="Salle Laennec, 2e étage",
    zone_note="(heure de Paris)",
)
REQUESTER = v.Professional("Docteur Camille DEMANDEUR", "Oncologie médicale", "CHU fictif de Bordeaux")
QUORUM = v.Quorum(
    "Trois médecins de spécialités différentes au moins.",
    v.Badge("Quorum atteint", "success"),
    "4 médecins, 3 spécialités : oncologie médicale, radiologie, chirurgie digestive.",
)
CONTRIBUTION = v.Contribution(
    heading="Contribution du médecin traitant – Commentaire du Docteur Paul DURANT-FICTIF",
    speciality="Médecine générale",
    at=NOW,
    text="Autonome à domicile, vit seule depuis un an.\nAnxiété importante : l’annonce a été difficile.\n\n"
    "Souhaite éviter une hospitalisation prolongée.",
    interested=True,
)
WEBCONF = v.Webconference("https://visio.example.fr/rcp-digestif", "Mot de passe : MDPVISIO1213")
FORM = v.ContributionForm(
    action="/dossiers/7K3Q/contribution", signature="Docteur Paul DURANT-FICTIF, Médecine générale", version="1"
)
REPORTS = (
    v.ReportVersion(
        2,
        v.Badge("Validée", "success"),
        datetime(2023, 5, 12, 9, 5, tzinfo=PARIS),
        "Professeur Alix VALIDEUR",
        "/dossiers/7K3Q/compte-rendu/2.pdf",
        "/dossiers/7K3Q/compte-rendu/2.cda.xml",
        "Correction : posologie précisée.",
    ),
    v.ReportVersion(
        1,
        v.Badge("Remplacée", "neutral"),
        datetime(2023, 5, 11, 21, 0, tzinfo=PARIS),
        "Professeur Alix VALIDEUR",
        "/dossiers/7K3Q/compte-rendu/1.pdf",
        "/dossiers/7K3Q/compte-rendu/1.cda.xml",
    ),
)
FILES = v.Attachments(
    (
        v.AttachedFile(
            "coupe-pancreas.png", "Image PNG", "412 Kio", "Docteur Camille DEMANDEUR", NOW, "/static/sample.svg", True
        ),
        v.AttachedFile(
            "compte rendu d’écho-endoscopie.pdf",
            "PDF",
            "1,2 Mio",
            "Docteur Paul DURANT-FICTIF",
            NOW,
            "/dossiers/7K3Q/pieces/2.pdf",
            remove_url="/dossiers/7K3Q/pieces/2/retirer",
        ),
    ),
    "/dossiers/7K3Q/pieces",
)
AWAITED = v.AwaitedImages(
    1,
    v.Badge("1 examen manque", "warning"),
    (
        v.AwaitedLine("Scanner thoraco-abdomino-pelvien", "Scanner", "02/05/2023", "demandé par CHU fictif", True),
        v.AwaitedLine(
            "IRM hépatique", "IRM", "", "déclaré par 810000000001", False, "/dossiers/7K3Q/images-attendues/2/retirer"
        ),
    ),
    "/dossiers/7K3Q/images-attendues",
)
DOSSIER = v.Dossier(
    reference="RCP-7K3Q-29",
    state=v.Badge("Pré-fiche complète", "info"),
    patient=PATIENT,
    slot=SLOT,
    requester=REQUESTER,
    participation="Participera en webconférence",
    problem="Tumeur du pancréas",
    urgent=True,
    question="Lésion de la tête du pancréas de 28 mm, au contact de la veine mésentérique supérieure.\n\n"
    "Indication d’une chimiothérapie néoadjuvante avant chirurgie ?",
    tumour=v.Tumour(
        "Tumeur maligne de la tête du pancréas", "C25.0", "Adénocarcinome SAI (8140/3)", "", "cT2 N0 M0 (8e éd.)", "IB"
    ),
    clinical=v.Clinical(
        case_type="Appareil digestif",
        reason="Décision thérapeutique initiale",
        performance_status="1",
        sections=(
            v.FormSection(
                "Situation clinique",
                (
                    v.Answer("Découverte", "Ictère nu, amaigrissement de 6 kg en deux mois"),
                    v.Answer("Antécédents", "Hypertension artérielle\nDiabète de type 2"),
                    v.Answer("Traitements en cours", "Metformine, périndopril"),
                ),
            ),
        ),
    ),
    studies=(
        v.Study(
            "Scanner thoraco-abdomino-pelvien",
            "CT",
            datetime(2023, 5, 2, 10, 12, tzinfo=PARIS),
            1,
            3,
            tuple(
                v.Image("/static/sample.svg", "/static/sample.svg", f"Scanner, série 1, image {n} sur 3")
                for n in (1, 2, 3)
            ),
        ),
    ),
    contributions=(CONTRIBUTION,),
    contribution_form=FORM,
    correspondents=(
        v.Correspondent(
            "Médecin traitant",
            v.Professional("Docteur Paul DURANT-FICTIF", "Médecine générale", "Cabinet médical, Bègles"),
            personal=True,
            secretariat=False,
            information=(
                "Notification envoyée le 09/05/2023 à 08h00",
                "Remise le 09/05/2023 à 08h01",
                "Contribution du 09/05/2023",
            ),
        ),
        v.Correspondent(
            "Médecin correspondant de la tumeur",
            v.Professional("Docteur Inès CORRESPONDANTE", "Gastro-entérologie"),
            personal=False,
            secretariat=True,
        ),
    ),
    history=(
        v.HistoryLine(
            datetime(2023, 5, 4, 16, 2, tzinfo=PARIS), "Dossier inscrit à la séance du 11/05/2023", "Docteur DEMANDEUR"
        ),
        v.HistoryLine(datetime(2023, 5, 9, 8, 0, tzinfo=PARIS), "Notification envoyée au médecin traitant"),
    ),
    interop=(
        v.InteropLine("PACS du CHU fictif", "Étude CT reçue, 3 images", datetime(2023, 5, 4, 16, 20, tzinfo=PARIS)),
    ),
    webconference=WEBCONF,
    not_my_patient_url="/dossiers/7K3Q/pas-mon-patient",
    attachments=FILES,
    images=AWAITED,
)
CARDS = (
    v.RcpCard(
        "Tumeurs digestives", "Régionale", "/rcp/1", "Digestif", "3C fictif d’Aquitaine", "Clinique Tivoli", START
    ),
    v.RcpCard("Sein et gynécologie", "Locale", "/rcp/2", "Sein", "3C fictif d’Aquitaine", "Institut fictif", START),
    v.RcpCard("Sarcomes rares", "Nationale", "/rcp/3", "Os et tissus mous", "Filière fictive", "À distance"),
)
SESSION = v.Session(
    slot=SLOT,
    state=v.Badge("Ouverte", "info"),
    quorum=QUORUM,
    dossiers=(
        v.SessionDossier(
            1,
            "Mme PATIENT-ESSAI Jeanne",
            "RCP-7K3Q-29",
            "01/03/1965",
            "Dr DEMANDEUR",
            "/dossiers/7K3Q",
            v.Badge("Pré-fiche complète", "info"),
            "C25.0 – Tumeur maligne de la tête du pancréas",
            "Décision initiale",
            (),
            contribution=True,
            imaging=True,
            urgent=True,
            physician_awaited=True,
            report_url="/dossiers/7K3Q/compte-rendu",
            report_label="Rédiger",
        ),
        v.SessionDossier(
            2,
            "M. ESSAI-DEUX Karim",
            "RCP-9F2M-11",
            "23/11/1948",
            "Dr DEMANDEUR",
            "/dossiers/9F2M",
            v.Badge("Inscrit", "neutral"),
            "C18.7 – Tumeur maligne du côlon sigmoïde",
            missing=("question posée", "imagerie"),
        ),
    ),
    register=(
        v.RegisterLine(
            "RCP-7K3Q-29",
            "Mme PATIENT-ESSAI Jeanne",
            "Dr DURANT-FICTIF",
            ("Notification envoyée le 09/05/2023 à 08h00", "Contribution du 09/05/2023"),
            "success",
            "/dossiers/7K3Q",
        ),
        v.RegisterLine(
            "RCP-9F2M-11", "M. ESSAI-DEUX Karim", "", ("Médecin traitant non renseigné",), "warning", "/dossiers/9F2M"
        ),
    ),
    attendees=(
        v.Attendee(
            "1",
            v.Professional("Professeur Alix VALIDEUR", "Chirurgie digestive"),
            present=True,
            mode="presentiel",
            mode_label="En salle",
        ),
        v.Attendee(
            "2",
            v.Professional("Docteur Camille DEMANDEUR", "Oncologie médicale"),
            present=True,
            mode="webconference",
            mode_label="À distance",
        ),
        v.Attendee("3", v.Professional("Sacha COORDINATION", "Infirmier de coordination")),
    ),
    informed=v.Informed(
        "09/05/2023",
        automatic=False,
        settings_url="/rcp/1/reglages",
        lines=(
            v.InformedLine(
                "Docteur Paul DURANT-FICTIF",
                "Médecine générale",
                ("paul.durant-fictif@medecin.mssante.example", "05 00 00 00 00"),
                "Mme PATIENT-ESSAI Jeanne",
                "RCP-7K3Q-29",
                "/dossiers/7K3Q",
                NOW,
                "jeudi 11 mai 2023 à 18h30",
                "https://visio.example.fr/ancien-lien-de-la-reunion",
                v.Badge("À prévenir : nouveau lien", "danger"),
            ),
        ),
    ),
    attendance_url="/seances/12/presents",
    presences=(("", "Absent"), ("presentiel", "En salle"), ("webconference", "À distance")),
    actions=(v.Action("/seances/12/etat", "Clore la séance", primary=True, name="vers", value="close"),),
    webconference=WEBCONF,
)
WHO = v.RegisterWho("RCP-7K3Q-29", "Mme PATIENT-ESSAI Jeanne", "01/03/1965", "/dossiers/7K3Q")
GONE = v.RegisterWho(
    "RCP-9F2M-11",
    "M. <b>ESSAI-DEUX</b> Karim",
    "23/11/1948",
    "/dossiers/9F2M",
    v.Badge("Déplacé à une autre séance", "warning"),
)
REGISTER = v.Register(
    slot=SLOT,
    state=v.Badge("Prévue"),
    back_url="/seances/12",
    csv_url="/seances/12/registre.csv",
    counts=(v.Badge("1 notifié", "success"), v.Badge("1 échec à traiter", "danger")),
    notices=(
        v.RegisterNotice(
            WHO,
            "Docteur Paul DURANT-FICTIF",
            "Médecine générale",
            "ENVOYEE",
            v.Badge("Notification envoyée le 09/05/2023 à 08h00", "success"),
            due=v.Moment(NOW),
            sent=v.Moment(NOW),
            delivered=v.Moment(text="Retardé"),
            more=("Changement annoncé le 10/05/2023 à 09h00",),
        ),
        v.RegisterNotice(
            GONE,
            "",
            "",
            "NON_MT",
            v.Badge("Médecin traitant non renseigné", "warning"),
        ),
    ),
    reports=(
        v.RegisterReport(
            WHO,
            "Docteur Paul DURANT-FICTIF",
            "Compte rendu (version 1)",
            "ENVOYEE",
            v.Badge("Intégré par le logiciel", "success"),
            sent=v.Moment(NOW),
            read=v.Moment(NOW, "Intégré"),
        ),
    ),
)
DRAFT = ReportDraft(
    proposal="Chimiothérapie néoadjuvante par FOLFIRINOX.",
    treatments=(DraftTreatment(code="C15632", text="FOLFIRINOX", start="2023-06"),),
    examinations=(DraftExamination(text="TEP-scanner", earliest="2023-06-01"),),
    recommended=("fertilite",),
)
REPORT = v.Report(
    reference="RCP-7K3Q-29",
    patient=PATIENT,
    slot=SLOT,
    state=v.Badge("Brouillon", "warning"),
    dossier_url="/dossiers/7K3Q",
    question=DOSSIER.question,
    contributions=(CONTRIBUTION,),
    attendees=("Professeur Alix VALIDEUR, Chirurgie digestive", "Docteur Camille DEMANDEUR, Oncologie médicale"),
    quorum=QUORUM,
    form=report_form.form_of(
        DRAFT,
        action="/dossiers/7K3Q/compte-rendu",
        asks_reason=True,
        discard_url="/x",
        faults={"traitement-1-debut": "Écrivez une date : JJ/MM/AAAA, MM/AAAA ou AAAA."},
    ),
    versions=REPORTS,
    sendings=(
        v.Sending(
            "Docteur Paul DURANT-FICTIF, médecin traitant",
            "paul.durant-fictif@medecin.mssante.example",
            1,
            v.Badge("Remis", "success"),
            NOW,
            ("Remis le 11/05/2023 à 21h01", "Lu le 12/05/2023 à 07h40"),
        ),
        v.Sending(
            "Docteur Camille DEMANDEUR, demandeur",
            "c.demandeur@chu.mssante.example",
            1,
            v.Badge("Échec : boîte pleine", "danger"),
            NOW,
        ),
    ),
)
_SERIES = v.ViewerSeries(
    study_uid="1.2.3",
    series_uid="1.2.3.1",
    label="Axial 5 mm",
    modality="CT",
    images=3,
    documents=0,
    url="/dossiers/1/images?serie=1.2.3.1",
    thumbnail_url="/static/sample.svg",
    selected=True,
)
IMAGES = v.Viewer(
    reference=DOSSIER.reference,
    patient=PATIENT,
    back_url="/dossiers/1",
    studies=(
        v.ViewerStudy(
            "Scanner thoraco-abdomino-pelvien",
            datetime(2023, 5, 2, 10, 12, tzinfo=PARIS),
            (
                _SERIES,
                replace(
                    _SERIES, series_uid="1.2.3.2", label="Dose", images=0, documents=1, thumbnail_url="", selected=False
                ),
            ),
        ),
    ),
    still=v.ViewerStill(
        "1.2.3.1.1", "/static/sample.svg", "Image 1 sur 3", 1, 3, pictured=True, next_url="/dossiers/1"
    ),
    chosen="1.2.3.1",
)

IMAGE_CASE = v.ImagingCaseLine(
    "La date de naissance de l’étude contredit celle du patient.",
    NOW,
    "/imagerie/1",
    "3 jours",
    "PACS du CHU fictif",
    "RCP-7K3Q-29",
    "danger",
    "Quarantaine",
)
PAGES: dict[str, v.Page] = {
    "accueil": v.Home(CARDS),
    "images": IMAGES,
    "images-aucune": v.Viewer(reference=DOSSIER.reference, patient=PATIENT, back_url="/dossiers/1"),
    "rcps": v.Rcps(CARDS, "", (v.Choice("", "Tous les niveaux", selected=True), v.Choice("locale", "Locale"))),
    "rcp": v.Rcp(card=CARDS[0], quorum_rule=QUORUM.rule, sessions=(SLOT,), contact="secretariat@3c.example"),
    "reglages": v.RcpSettings(
        rcp=CARDS[0].title,
        action="/rcp/1/reglages",
        back_url="/rcp/1",
        sections=settings_form.inputs(known(RCP)),
        agreed_by="Alix VALIDEUR",
        agreed_at=NOW,
        errors={
            "notification.jours": "Le champ « Nombre de jours avant la réunion » attend un nombre entier de 1 à 60."
        },
    ),
    "pps": v.Plan(
        reference="RCP-7K3Q-29",
        patient=PATIENT,
        state=v.Badge("Brouillon", "info"),
        back_url="/dossiers/7K3Q",
        action="/dossiers/7K3Q/pps",
        sections=fiche_form.inputs(PLAN, FicheRules(), (), among=pps_draft.sections()),
        started=True,
        discard_url="/dossiers/7K3Q/pps/abandon",
        versions=REPORTS[:1],
        errors={"remis": "Le champ « Date de remise au patient » attend une date."},
    ),
    "pps-valide": v.Plan(
        reference="RCP-7K3Q-29",
        patient=HOSTILE,
        state=v.Badge("Validée", "success"),
        back_url="/dossiers/7K3Q",
        parts=PLAN_PARTS,
        versions=REPORTS,
        renew_url="/dossiers/7K3Q/pps?nouvelle=1",
    ),
    "pps-validation": v.PlanValidation(
        reference="RCP-7K3Q-29",
        patient=PATIENT,
        action="/dossiers/7K3Q/pps/validation",
        back_url="/dossiers/7K3Q/pps",
        parts=PLAN_PARTS,
        replaces=1,
        errors={"relu": "Cochez la case après avoir relu le programme."},
    ),
    "connexion": v.SignIn(),
    "connexion-refusee": v.SignIn(problem="L’authentification n’a pas abouti. Vous pouvez réessayer."),
    "patients": v.Patients(
        total=2,
        tiles=(
            v.Tile(
                PATIENT, SLOT.rcp, START, v.Badge("Demande en attente", "warning"), "/dossiers/7K3Q", "C25.0 – Pancréas"
            ),
            v.Tile(HOSTILE, SLOT.rcp, START, v.Badge("Demande répondue", "success"), "/dossiers/9F2M"),
        ),
        news=(
            v.News(
                NOW,
                "Femme PATIENT-ESSAI Jeanne (01/03/1965)",
                "Pancréas",
                "À venir : présentation en …",
                "/dossiers/7K3Q",
            ),
        ),
        news_total=31,
        filters=(v.Choice("attente", "Demande en attente (1)"), v.Choice("repondue", "Demande répondue (1)")),
        page=2,
    ),
    "situation": SituationChoice((("a1", "Médecin – Oncologie – CHU fictif"), ("b2", "Médecin – Cabinet"))),
    "patients-vide": v.Patients(),
    "dossier": DOSSIER,
    "pas-mon-patient": v.NotMyPatient(
        PATIENT, SLOT, "/dossiers/7K3Q/pas-mon-patient", "RCP-7K3Q-29", back_url="/dossiers/7K3Q"
    ),
    "pas-mon-patient-fait": v.NotMyPatient(recorded=NOW),
    "seances": v.Sessions(
        (v.SessionLine(SLOT, v.Badge("Programmée"), 2),), (v.SessionLine(SLOT, v.Badge("Close", "success"), 5, 1),), 2
    ),
    "seance": SESSION,
    "registre": REGISTER,
    "compte-rendu": REPORT,
    "compte-rendu-validation": v.ReportValidation(
        reference="RCP-7K3Q-29",
        patient=PATIENT,
        slot=SLOT,
        action="/dossiers/7K3Q/compte-rendu/validation",
        back_url="/dossiers/7K3Q/compte-rendu",
        said=report_form.lines_of(DRAFT),
        contributions=(CONTRIBUTION,),
        quorum=QUORUM,
        recipients=("Docteur Paul DURANT-FICTIF (médecin traitant)",),
        errors={"relu": "Confirmez que vous avez relu le compte rendu."},
    ),
    "compte-rendu-retrait": v.ReportEnding(
        heading_text="Retirer le compte rendu",
        reference="RCP-7K3Q-29",
        patient=PATIENT,
        slot=SLOT,
        version=2,
        action="/dossiers/7K3Q/compte-rendu/annulation",
        back_url="/dossiers/7K3Q/compte-rendu",
        warning="Le compte rendu reste consultable ici, marqué « Annulé ».",
        confirm="Je retire ce compte rendu",
        button="Retirer et prévenir",
        danger=True,
        recipients=("Docteur Paul DURANT-FICTIF",),
        errors={"motif": "Dites pourquoi."},
    ),
    "a-traiter": v.Worklist(
        (
            v.WorkItem(
                "Ce n’est pas mon patient", "Le médecin traitant déclaré ne suit pas cette personne.", NOW, url="/d"
            ),
        ),
        (v.WorkItem("Étude d’imagerie", "La date de naissance de l’étude contredit celle du patient.", NOW, "danger"),),
    ),
    "images-a-rattacher": v.ImagingCases(
        (IMAGE_CASE,), (replace(IMAGE_CASE, reason="Sans rapport avec ce patient", url="/imagerie/2"),)
    ),
    "images-a-comparer": v.ImagingCase(
        line=IMAGE_CASE,
        facts=(
            ("Étude", "TAP"),
            ("Modalités", "CT"),
            ("Contenu", "512 images"),
            ("Identifiant de l’étude", "1.2.250.1.999999.2026.4.1.1234567890.1234567890.1234567890"),
        ),
        traits=(
            v.ImagingTrait("Nom", "PATIENT-ESSAI", (("PATIENT-ESSAI / DUPRÉ-FICTIF", False), ("PATIENT", False))),
            v.ImagingTrait("Naissance", "01/03/1956", (("01/03/1965", True), ("01/03/1956", False))),
        ),
        candidates=(
            v.ImagingCandidate(
                "a1",
                "Patient 1 (dossier RCP-7K3Q-29)",
                ("La date de naissance de l’étude contredit celle du patient.",),
                selected=True,
            ),
            v.ImagingCandidate("b2", "Patient 2 (dossier RCP-9F2M-11)"),
        ),
        url="/imagerie/1",
        seen="f00d",
        open=True,
        study=True,
        against=True,
        judgeable="Réexaminer cette étude",
        reason_characters=300,
        errors={"confirme": "Les deux identités diffèrent : confirmez que vous les avez comparées."},
    ),
    "images-tranchees": v.ImagingCase(
        line=replace(IMAGE_CASE, reason="Sans rapport avec ce patient"),
        url="/imagerie/1",
        closed="Laissée où elle est – 09/05/2023 à 14h58, par 810000000001",
        retakable=True,
        study=True,
    ),
    "images-attendues": v.AwaitedPage(
        reference="RCP-7K3Q-29",
        patient=PATIENT,
        images=replace(AWAITED, edit_url=""),
        back_url="/dossiers/7K3Q",
        action="/dossiers/7K3Q/images-attendues",
        key="c1e",
        label_characters=120,
        modalities=(v.Choice("CT", "Scanner", selected=True), v.Choice("MR", "IRM")),
        errors={"prevu": "Écrivez une date : JJ/MM/AAAA."},
    ),
    "pieces": v.AttachmentsPage(
        reference="RCP-7K3Q-29",
        patient=HOSTILE,
        attachments=replace(FILES, edit_url=""),
        back_url="/dossiers/7K3Q",
        action="/dossiers/7K3Q/pieces",
        accepted=".png,.pdf",
        limit="20,0 Mio",
        most=10,
        errors={"fichiers": "Fichier 2 (« scan.bmp ») : ce contenu n’est pas d’un type accepté."},
    ),
    "aide": v.Help(),
    "aide-medecin-traitant": v.PhysicianMemo(),
    "aide-medecin-rcp": v.MemberMemo(),
    "aide-test": v.SelfTest(
        (
            v.TestCheck("Liaison chiffrée", v.Badge("Conforme", "success")),
            v.TestCheck("Témoins", v.Badge("Refusés", "danger"), "Autorisez les témoins de connexion pour ce site."),
        ),
        done=True,
    ),
    "aide-navigateurs": v.Browsers((("Chrome", "53"), ("Firefox", "76")), "Firefox 60"),
    "aide-accessibilite": v.Accessibility(),
    "erreur-404": v.Error(
        404, "Page introuvable", "Cette page n’existe pas, ou elle ne vous est pas accessible.", "01J…"
    ),
}
USER = v.User("Docteur Paul DURANT-FICTIF", "Médecine générale", organises=True)
CHROME = v.Chrome(
    network="Réseau fictif d’Aquitaine",
    contact="secretariat@3c.example – 05 00 00 00 00",
    user=USER,
    csrf_token="jeton-fictif",
    current="/patients",
)
