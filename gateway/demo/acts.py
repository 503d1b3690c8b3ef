"""The story, act by act: each step through the wire that a real partner would use, told once it was seen."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from gateway.demo import fixtures, pacs
from gateway.demo.browser import Browser, Page
from gateway.demo.ct_phantom import DOMINIQUE, write_series
from gateway.demo.letters import Letter, read_letters, wait_for
from gateway.demo.narration import NotSeen
from gateway.demo.theatre import Theatre
from gateway.demo.timeline import tell_timeline
from gateway.rcp.directory import ProfessionalFacts

__all__ = ["BY_HAND_CLOCK", "DAYS", "Act", "Day", "by_hand"]

_M1 = "Médecin – Notification préalable RCP"
_M2 = "Demandeur – Contribution du médecin traitant avant RCP"
_M6 = "XDM/1.0/DDM+"
_REPORT = "http://loinc.org|34794-8"
_STARTS = datetime.fromisoformat("2026-03-19T14:00:00+01:00")
_LINK = re.compile(r"https?://\S+/dossiers/[0-9A-Za-z-]+")
_CLASSICAL = frozenset({"titre", "situation", "antecedents", "histoire", "question", "proposition"})


@dataclass(frozen=True, slots=True)
class Act:
    """One act: its number and title in the story, and what it plays."""

    number: int
    title: str
    play: Callable[[Theatre], None]


@dataclass(frozen=True, slots=True)
class Day:
    """One run of the gateway at a clock, and the acts that it sees."""

    clock: datetime
    acts: tuple[Act, ...]


def _require(condition: object, step: str, why: str) -> None:
    if not condition:
        raise NotSeen(step, why)


# -- 1. the hospital's record system ---------------------------------------------------------------------------------


def _inscription(theatre: Theatre) -> None:
    ehr, narrator = theatre.ehr, theatre.narrator
    token = ehr.sign_in()
    narrator.seen(
        "Le DPI du CHU X obtient un jeton d’accès",
        wire="SMART",
        outcome=f"private_key_jwt ES384, jeton de {token.get('expires_in', '?')} s",
    )
    bundle = fixtures.story("inscription")
    asked = narrator.write("01-inscription-requete.json", msgspec.json.format(msgspec.json.encode(bundle), indent=1))
    raw, answer = ehr.transaction(bundle)
    answered = narrator.write("01-inscription-reponse.json", msgspec.json.format(raw, indent=1))
    statuses = [entry["response"]["status"][:3] for entry in answer["entry"]]
    _require(set(statuses) <= {"200", "201"}, "Transaction d’inscription", f"statuts {statuses}")
    narrator.seen(
        "Il pousse en une transaction la patiente, sa tumeur, l’inscription et la pré-fiche",
        wire="FHIR",
        outcome=f"{len(bundle['entry'])} ressources, réponses {', '.join(statuses)}",
        file=asked,
    )
    number = "urn:uuid:6a1f3f0e-5a55-4c2c-9a51-0c6f7d2c8d10"
    found = ehr.matches(f"ServiceRequest?identifier={quote('urn:ietf:rfc:3986|' + number, safe='')}")
    _require(len(found) == 1, "Dossier inscrit", f"{len(found)} dossier(s) à ce numéro d’inscription")
    starts = datetime.fromisoformat(found[0]["occurrenceDateTime"])
    _require(starts == _STARTS, "Séance du dossier", f"le dossier est inscrit à la séance du {starts:%d/%m/%Y}")
    [task] = ehr.matches(f"Task?based-on=ServiceRequest/{found[0]['id']}") or [{}]
    state = task.get("businessStatus", {}).get("coding", [{}])[0].get("display", "inconnu")
    narrator.seen(
        "Le dossier est dans la séance du jeudi 19 mars 2026",
        wire="FHIR",
        outcome=f"retrouvé par son numéro d’inscription, état « {state} »",
        file=answered,
    )
    _, again = ehr.transaction(bundle)
    found = ehr.matches(f"ServiceRequest?identifier={quote('urn:ietf:rfc:3986|' + number, safe='')}")
    _require(len(found) == 1, "Même transaction deux fois", f"{len(found)} dossiers")
    narrator.seen(
        "La même transaction envoyée deux fois ne fait qu’un dossier",
        wire="FHIR",
        outcome="réponses " + ", ".join(entry["response"]["status"][:3] for entry in again["entry"]),
    )


# -- 2. the PACS -----------------------------------------------------------------------------------------------------


def _images(theatre: Theatre) -> None:
    narrator, addresses = theatre.narrator, theatre.stage.addresses
    paths = write_series(DOMINIQUE, theatre.folder / "02-scanner")
    pacs.send(paths, calling="CHUX_PACS", called=addresses.ae_title, host=addresses.host, port=addresses.dicom)
    theatre.seen.study_uid = DOMINIQUE.study_uid
    narrator.seen(
        "Le PACS envoie un scanner thoracique",
        wire="DICOM",
        outcome=f"C-ECHO, puis {len(paths)} objets par C-STORE, tous rangés (0x0000)",
        file=paths[0].parent,
    )
    study = "urn:oid:" + DOMINIQUE.study_uid
    query = f"ImagingStudy?identifier={quote('urn:dicom:uid|' + study, safe='')}"
    # Represented at its first object, then again once it has settled.
    found = theatre.patiently(
        lambda: [one for one in theatre.ehr.matches(query) if one.get("numberOfInstances") == len(paths)],
        f"ImagingStudy de {len(paths)} objets",
    )
    file = narrator.write("02-imagingstudy.json", msgspec.json.format(msgspec.json.encode(found[0]), indent=1))
    narrator.seen(
        "L’examen est rattaché au dossier par l’IPP et son domaine",
        wire="FHIR",
        outcome=f"ImagingStudy de {found[0]['numberOfInstances']} objets",
        file=file,
    )
    first = f"{DOMINIQUE.study_uid}.1.3"
    path = f"/dicom-web/studies/{DOMINIQUE.study_uid}/series/{DOMINIQUE.study_uid}.1/instances/{first}/rendered"
    picture = theatre.ehr.download(path, "image/png").content
    _require(picture.startswith(b"\x89PNG"), "Coupe rendue", "ce n’est pas une image PNG")
    narrator.seen(
        "Une coupe se regarde sans logiciel d’imagerie",
        wire="DICOMweb",
        outcome=f"image PNG de {len(picture) // 1024} Kio",
        file=narrator.write("02-coupe.png", picture),
    )
    early = read_letters(theatre.mail, theatre.box(theatre.people.treating))
    _require(not early, "Rien avant l’heure", f"{len(early)} message(s) déjà chez le médecin traitant")
    narrator.seen("Le médecin traitant n’a encore rien reçu", wire="IMAP", outcome="boîte vide, dix jours avant")


# -- 3. two working days before --------------------------------------------------------------------------------------


def _notification(theatre: Theatre) -> None:
    narrator, treating = theatre.narrator, theatre.people.treating
    letter = wait_for(theatre.mail, theatre.box(treating), _M1)
    _require(letter.subject == _M1, "Objet de la notification", f"objet « {letter.subject} »")
    words = ("PAT-TROIS", "28/03/1979", "Sénologie A", "jeudi 19 mars 2026 à 14h00", "PERRIN", "Référence : RCP-")
    absent = [word for word in words if word not in letter.text]
    _require(not absent, "Texte de la notification", f"absent du message : {', '.join(absent)}")
    link = _LINK.search(letter.text)
    _require(link, "Lien de la fiche", "aucun lien vers le dossier dans le message")
    theatre.seen.dossier_url = link[0] if link else ""
    narrator.seen(
        f"Dr {treating.given} {treating.family}, médecin traitant, est prévenue deux jours ouvrés avant",
        wire="MSSanté",
        outcome=f"objet « {letter.subject} », relu dans sa boîte par IMAP",
        file=narrator.write("03-notification.eml", letter.raw),
    )


# -- 4. the physician ------------------------------------------------------------------------------------------------


def _sign_in(theatre: Theatre, browser: Browser, who: ProfessionalFacts, url: str, *, expected: int = 200) -> Page:
    """Follow a link of ours to the provider, choose an identity there, and come back where the link led."""
    page = browser.open(url)
    if urlsplit(page.url).path == "/connexion":
        page = browser.open(page.link("/psc/connexion"))
    _require(page.url.startswith(theatre.psc_origin), "Pro Santé Connect", f"arrivé sur {page.path}")
    form = page.form("compte")
    return browser.submit(page, form, button=f"{who.given} {who.family}", expected=expected)


def _physician(theatre: Theatre) -> None:
    narrator, people = theatre.narrator, theatre.people
    contribution = fixtures.story("contribution")
    with Browser() as browser:
        fiche = _sign_in(theatre, browser, people.treating, theatre.seen.dossier_url)
        _require("PAT-TROIS" in fiche.text, "Fiche du dossier", f"la patiente n’est pas sur la page {fiche.path}")
        narrator.seen(
            "Elle suit le lien du message et s’identifie par Pro Santé Connect",
            wire="PSC",
            outcome="code d’autorisation, PKCE, acr et audience vérifiés ; aucun compte à créer",
        )
        offered = {field.get("name") for form in fiche.tree.forms for field in form.iter("input", "textarea", "select")}
        _require(not offered & _CLASSICAL, "Fiche en lecture seule", f"champs modifiables : {offered & _CLASSICAL}")
        file = narrator.write("04-fiche.html", fiche.body)
        narrator.seen("Elle lit la fiche, en lecture seule", wire="HTTP", outcome=f"page {fiche.path}", file=file)
        images = browser.open(fiche.link("Regarder les images"))
        stills = [image.get("src") for image in images.tree.iter("img") if "/rendered" in (image.get("src") or "")]
        _require(len(stills) == 1, "Images du dossier", f"aucune image sur la page {images.path}")
        narrator.seen(
            "Elle regarde le scanner dans son navigateur : coupes, fenêtres, mesures, deux séries côte à côte",
            wire="HTTP",
            outcome=f"page {images.path}",
            file=narrator.write("04-images.html", images.body),
        )
        done = browser.submit(
            fiche,
            fiche.form("commentaire"),
            {"commentaire": contribution["text"], "interet": "oui"},
        )
        _require(contribution["text"][:40] in done.text, "Contribution", "le texte n’est pas sur la fiche")
        narrator.seen(
            "Elle laisse un commentaire et dit que la discussion l’intéresse",
            wire="HTTP",
            outcome="versé à la fiche, visible des participants",
            file=narrator.write("04-contribution.html", done.body),
        )
    with Browser() as browser:
        _sign_in(theatre, browser, people.stranger, theatre.seen.dossier_url, expected=404)
        narrator.seen(
            f"Dr {people.stranger.given} {people.stranger.family}, que ce dossier ne concerne pas, suit le même lien",
            wire="PSC",
            outcome="404 : pour lui, ce dossier n’existe pas ; sa tentative est tracée",
        )


# -- 5. the requester ------------------------------------------------------------------------------------------------


def _requester(theatre: Theatre) -> None:
    narrator, requester = theatre.narrator, theatre.people.requester
    letter = wait_for(theatre.mail, theatre.box(requester), _M2)
    text = fixtures.story("contribution")["text"]
    _require(text[:30] not in letter.text, "Message au demandeur", "le texte de la contribution y figure")
    narrator.seen(
        f"Dr {requester.given} {requester.family}, demandeur, apprend qu’une contribution l’attend",
        wire="MSSanté",
        outcome="le message ne contient pas le texte de la contribution",
        file=narrator.write("05-contribution.eml", letter.raw),
    )


# -- 6. the session --------------------------------------------------------------------------------------------------


def _session(theatre: Theatre) -> None:
    narrator, coordinator = theatre.narrator, theatre.people.coordinator
    known, plan = fixtures.directory(), fixtures.story("report")
    with Browser() as browser:
        page = _sign_in(theatre, browser, coordinator, f"{theatre.url}/seances")
        session = _session_of_the_day(browser, page)
        session = browser.submit(session, session.form("vers"))
        narrator.seen(
            f"Dr {coordinator.given} {coordinator.family}, coordonnatrice, ouvre la séance",
            wire="HTTP",
            outcome="le dossier est à l’ordre du jour",
        )
        form = session.form("presence-")
        present = [f"{known[rpps].given} {known[rpps].family}" for rpps in plan["attendees"]]
        session = browser.submit(session, form, _presences(form, present))
        _require("Quorum atteint" in session.text, "Quorum", "la page ne dit pas « Quorum atteint »")
        narrator.seen("Les présents sont notés", wire="HTTP", outcome=f"{len(present)} médecins, quorum atteint")
        _write_report(theatre, browser, plan)


def _session_of_the_day(browser: Browser, page: Page) -> Page:
    for link in dict.fromkeys(page.links("/seances/")):
        if link.endswith("a-traiter"):
            continue
        session = browser.open(link)
        if "19 mars 2026" in session.text and "PAT-TROIS" in session.text:
            return session
    raise NotSeen("Séance du 19 mars 2026", "introuvable depuis la page « Séances »")


def _presences(form: Any, present: list[str]) -> dict[str, str]:
    values = {}
    for select in form.iter("select"):
        label = form.xpath(f".//label[@for='{select.get('id')}']")
        words = " ".join(label[0].text_content().split()) if label else ""
        here = any(all(part in words for part in name.split(" ", 1)) for name in present)
        values[select.get("name")] = "presentiel" if here else ""
    return values


def _write_report(theatre: Theatre, browser: Browser, plan: dict[str, Any]) -> None:
    narrator = theatre.narrator
    fiche = browser.open(theatre.seen.dossier_url)
    page = browser.open(fiche.link("compte-rendu"))
    form = page.form("proposition")
    review = browser.submit(
        page, form, {"proposition": plan["proposal"], "referentiel": plan["guideline"]}, button="suite=valider"
    )
    narrator.seen("Elle rédige le compte rendu et le relit", wire="HTTP", outcome="brouillon conservé, jamais envoyé")
    done = browser.submit(review, review.form("relu"), {"relu": "oui"})
    _require("PAT-TROIS" in done.text, "Validation", f"arrivé sur {done.path}")
    narrator.seen(
        "Elle le valide",
        wire="HTTP",
        outcome="présents, quorum et contribution sont figés dans la version 1",
        file=narrator.write("06-compte-rendu.html", done.body),
    )


# -- 7. the report leaves --------------------------------------------------------------------------------------------


def _sending(theatre: Theatre) -> None:
    narrator, people = theatre.narrator, theatre.people
    letters = {who.family: wait_for(theatre.mail, theatre.box(who), _M6) for who in (people.treating, people.requester)}
    archives = {name: _parts(letter) for name, letter in letters.items()}
    (cda, pdf, archive), other = archives[people.treating.family], archives[people.requester.family]
    _require((cda, pdf) == other[:2], "Compte rendu envoyé", "les deux destinataires n’ont pas reçu les mêmes octets")
    _require(b"pdfaid:part" in pdf, "PDF/A", "le PDF ne se déclare pas PDF/A")
    theatre.seen.cda, theatre.seen.pdf = cda, pdf
    for name, letter in letters.items():
        file = narrator.write(f"07-compte-rendu-{name.lower()}.eml", letter.raw)
        narrator.seen(
            f"Dr {name} reçoit le compte rendu",
            wire="MSSanté",
            outcome=f"« {letter.subject} », IHE_XDM.zip et copie lisible",
            file=file,
        )
    for name, content, what in (
        ("07-compte-rendu.cda.xml", cda, "CDA R2 CANCER-FRCP 2022.01"),
        ("07-compte-rendu.pdf", pdf, "PDF/A"),
        ("07-compte-rendu.xdm.zip", archive, "archive IHE XDM"),
    ):
        file = narrator.write(name, content)
        narrator.seen(
            what, wire="XDM", outcome=f"{len(content) // 1024 or 1} Kio, sha-256 {_short(content)}", file=file
        )


def _parts(letter: Letter) -> tuple[bytes, bytes, bytes]:
    """The CDA of the archive, the readable PDF and the archive itself."""
    attached = letter.attachments
    archive = next((content for name, content in attached.items() if name.upper().endswith("XDM.ZIP")), b"")
    pdf = next((content for content in attached.values() if content.startswith(b"%PDF-")), b"")
    _require(archive, "IHE_XDM.zip", f"absent des pièces jointes ({', '.join(attached) or 'aucune'})")
    _require(pdf, "PDF du compte rendu", "absent des pièces jointes")
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        documents = [
            name
            for name in opened.namelist()
            if name.upper().startswith("IHE_XDM/") and name.lower().endswith(".xml") and "METADATA" not in name.upper()
        ]
        documents = [name for name in documents if b"ClinicalDocument" in opened.read(name)]
        _require(documents, "CDA de l’archive", f"contenu : {', '.join(opened.namelist())}")
        return opened.read(documents[0]), pdf, archive


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16] + "…"


# -- 8. the hospital finds the report --------------------------------------------------------------------------------


def _retrieval(theatre: Theatre) -> None:
    narrator, ehr = theatre.narrator, theatre.ehr
    ehr.sign_in()
    patients = ehr.matches(f"Patient?identifier={quote('https://chu-x.example/ns/ipp|000003', safe='')}")
    _require(len(patients) == 1, "Patiente du CHU X", f"{len(patients)} patient(s) à cet IPP")
    query = f"DocumentReference?patient=Patient/{patients[0]['id']}&type={quote(_REPORT, safe='')}"
    found = theatre.patiently(lambda: ehr.matches(query), "Compte rendu par recherche FHIR")
    file = narrator.write("08-documentreference.json", msgspec.json.format(msgspec.json.encode(found[0]), indent=1))
    narrator.seen(
        "Le DPI retrouve le compte rendu", wire="FHIR", outcome="DocumentReference par patient et type", file=file
    )
    bodies = []
    for content in found[0]["content"]:
        attachment = content["attachment"]
        bodies.append(ehr.download(attachment["url"], attachment["contentType"]).content)
    mailed = {theatre.seen.pdf, theatre.seen.cda}
    _require(set(bodies) == mailed, "Octets du compte rendu", "les octets téléchargés ne sont pas ceux du message")
    narrator.seen(
        "Il télécharge le PDF et le CDA",
        wire="FHIR",
        outcome=f"les octets mêmes qui ont été envoyés : {', '.join(map(_short, bodies))}",
    )


# -- 9. the trail ----------------------------------------------------------------------------------------------------


DAYS: tuple[Day, ...] = (
    Day(
        datetime.fromisoformat("2026-03-09T09:00:00+01:00"),
        (
            Act(1, "Le CHU X inscrit sa patiente à la RCP de sénologie", _inscription),
            Act(2, "Le PACS envoie le scanner", _images),
        ),
    ),
    Day(
        datetime.fromisoformat("2026-03-17T08:00:00+01:00"),
        (Act(3, "Deux jours ouvrés avant la séance, le médecin traitant est prévenu", _notification),),
    ),
    Day(
        datetime.fromisoformat("2026-03-17T12:30:00+01:00"),
        (
            Act(4, "Le médecin traitant lit la fiche et contribue", _physician),
            Act(5, "Le demandeur en est averti", _requester),
        ),
    ),
    Day(
        datetime.fromisoformat("2026-03-19T14:05:00+01:00"),
        (
            Act(6, "La séance se tient", _session),
            Act(7, "Le compte rendu part", _sending),
            Act(8, "Le CHU X retrouve le compte rendu", _retrieval),
            Act(9, "La piste d’audit raconte le dossier", tell_timeline),
        ),
    ),
)

BY_HAND_CLOCK = datetime.fromisoformat("2026-03-24T09:00:00+01:00")


def by_hand(theatre: Theatre) -> None:
    """Inscribe a second patient, so that everything may be done again by hand in a browser."""
    theatre.ehr.sign_in()
    theatre.ehr.transaction(fixtures.story("by-hand"))
    theatre.narrator.say("Une seconde patiente vient d’être inscrite à la séance du 26 mars : à vous de jouer.")
