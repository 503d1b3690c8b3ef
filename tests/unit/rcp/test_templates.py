"""The texts of the mails: what the specification prints, to the character."""

from __future__ import annotations

import unicodedata
from datetime import UTC, date, datetime, time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Fault, InvalidContent
from gateway.identifiers import uuid7
from gateway.model.directory import Mailbox, Organisation
from gateway.rcp import french, letters, templates
from gateway.terminology import mappings_dir

VALUES: dict[str, str | bool] = {
    "mt.titre": "Docteur",
    "mt.nom": "DURANT",
    "patient.nom": "DUPONT",
    "patient.prenom": "Jean",
    "patient.ne": "né",
    "patient.date_naissance": "01/03/1965",
    "rcp.titre": "Tumeurs digestives",
    "rcp.lieu": "Clinique Tivoli",
    "rcp.signature": "Le secrétariat de la RCP",
    "rcp.contact": "05 56 00 00 00",
    "seance.jour_long": "jeudi 11 mai 2023",
    "seance.heure": "18h30",
    "seance.date": "11/05/2023",
    "demandeur.titre": "Docteur",
    "demandeur.nom": "DEMANDEUR",
    "lien_fiche": "https://aquitaine.dcc.example/dossiers/7K3Q",
    "lien_pas_mon_patient": "https://aquitaine.dcc.example/dossiers/7K3Q/pas-mon-patient",
    "lien_memo_mt": "https://aquitaine.dcc.example/aide/medecin-traitant",
    "reference": "RCP-7K3Q-29",
}

M1_FULL = """\
Bonjour Docteur DURANT,

Le dossier de DUPONT Jean, né le 01/03/1965, dont vous êtes déclaré médecin traitant, sera examiné en réunion de concertation pluridisciplinaire :

  Réunion   : Tumeurs digestives – Clinique Tivoli
  Date      : jeudi 11 mai 2023 à 18h30
  Demandeur : Docteur DEMANDEUR
  Motif     : Tumeur du pancréas
  (intitulé provisoire : il peut manquer de précision et sera revu au moment de valider le compte rendu)

Rien ne vous est imposé. Si vous le souhaitez, avant la réunion vous pouvez :
  - lire la fiche en préparation et ses pièces jointes ;
  - y laisser un commentaire pour les participants ;
  - indiquer que la discussion vous intéresse.

Ouvrir la fiche (carte CPS ou e-CPS avec Pro Santé Connect, sans compte à créer) :
https://aquitaine.dcc.example/dossiers/7K3Q

Le jour dit, la réunion peut être suivie à distance :
https://mon-lien-visio.example
Mot de passe : MDPVISIO1213
Présentez-vous par votre nom et laissez votre micro coupé hors de vos interventions. Aucune heure de passage n'est garantie pour un dossier donné.

La fiche peut encore changer d'ici la validation du compte rendu. Un commentaire de votre part est visible des participants et reste dans le compte rendu.

Bien confraternellement,
Le secrétariat de la RCP
05 56 00 00 00

Ce n'est pas votre patient, ou plus ? https://aquitaine.dcc.example/dossiers/7K3Q/pas-mon-patient
Vos adresses MSSanté déclarées : https://annuaire.sante.fr    Mode d'emploi : https://aquitaine.dcc.example/aide/medecin-traitant
Référence : RCP-7K3Q-29
"""  # noqa: E501 (the text of features.md 4.2, one line a paragraph)


def m1(**more: str | bool) -> templates.Rendered:
    return templates.template("M1").render(VALUES | more)


@pytest.mark.req("S2-021", "S2-022", "S2-023", "S2-024", "S2-025", "S3-010", "S3-011", "S3-012", "S3-013", "S3-014")
def test_the_notification_reads_as_the_specification_prints_it():
    rendered = m1(
        **{
            "probleme": "Tumeur du pancréas",
            "webconf": True,
            "lien_webconf": "https://mon-lien-visio.example",
            "webconf.complement": "Mot de passe : MDPVISIO1213",
        }
    )
    assert rendered.body == M1_FULL


@pytest.mark.req("S3-005")
@pytest.mark.parametrize("code", ["M1", "M1b"])
def test_the_subject_of_the_notification_is_exact(code):
    subject = templates.template(code).render(VALUES).subject
    assert subject == "Médecin \N{EN DASH} Notification préalable RCP"
    assert len(subject) == 36  # row S3-005
    assert unicodedata.is_normalized("NFC", subject)


@pytest.mark.req("S2-022", "S2-025", "S3-014")
def test_what_is_not_there_leaves_no_trace():
    body = m1().body
    for word in (
        "Motif",
        "intitulé provisoire",
        "à distance",
        "Mot de passe",
        "répondez à ce message",
        "None",
        "{{",
        "[[",
    ):
        assert word not in body
    assert "  Demandeur : Docteur DEMANDEUR\n\nRien ne vous est imposé." in body
    assert "7K3Q\n\nLa fiche peut encore changer" in body
    assert "\n\n\n" not in body


def test_a_line_whose_link_does_not_exist_is_not_in_the_mail():
    values = {name: value for name, value in VALUES.items() if name not in {"lien_pas_mon_patient", "lien_memo_mt"}}
    body = templates.template("M1").render(values).body
    assert "pas votre patient" not in body
    assert "Mode d'emploi" not in body
    assert body.endswith("\n\nVos adresses MSSanté déclarées : https://annuaire.sante.fr\nRéférence : RCP-7K3Q-29\n")


def test_nested_blocks_follow_both_conditions():
    assert "code" not in m1(**{"webconf.complement": "code"}).body
    with_link = m1(webconf=True, lien_webconf="https://visio.example").body
    assert "https://visio.example\nPrésentez-vous" in with_link


def test_the_late_text_differs_only_in_its_first_sentence():
    usual, late = m1().body, templates.template("M1b").render(VALUES).body
    differing = [(a, b) for a, b in zip(usual.splitlines(), late.splitlines(), strict=True) if a != b]
    assert len(differing) == 1
    assert "vient d'être inscrit, tardivement, à la réunion" in differing[0][1]


@pytest.mark.req("S2-038")
def test_the_mail_to_the_requester_reads_as_printed():
    rendered = templates.template("M2").render(
        {
            name: VALUES[name]
            for name in VALUES
            if not name.startswith(("lien_pas", "lien_memo", "rcp.contact", "seance.jour", "seance.heure"))
        }
        | {"interet": True}
    )
    assert rendered.subject == "Demandeur – Contribution du médecin traitant avant RCP"
    assert rendered.body == (
        "Bonjour Docteur DEMANDEUR,\n"
        "\n"
        "Docteur DURANT a complété le dossier de DUPONT Jean, né le 01/03/1965, inscrit à la réunion "
        "Tumeurs digestives – Clinique Tivoli du 11/05/2023.\n"
        "Le médecin traitant souhaite assister à la discussion.\n"
        "\n"
        "Sa contribution se lit dans la fiche, avec votre carte CPS ou votre e-CPS :\n"
        "https://aquitaine.dcc.example/dossiers/7K3Q\n"
        "\n"
        "Le secrétariat de la RCP\n"
        "Référence : RCP-7K3Q-29\n"
    )


def test_no_subject_holds_a_value():
    """Subjects are constants; the composer of document mails adds what the national form asks for."""
    for code, text in templates.load().items():
        assert all(isinstance(node, str) for node in text.subject), code


def test_the_document_mail_begins_as_receivers_expect():
    assert templates.template("M6").subject == ("XDM/1.0/DDM+Compte rendu de RCP",)


@pytest.mark.parametrize(("written", "read"), [("1965-03-01", "01/03/1965"), ("1965-03", "03/1965"), ("1965", "1965")])
def test_a_partial_birth_date_is_not_completed(written, read):
    assert french.partial_date(written) == read


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("Objet : a\nContient : rien\n\n{{inconnue}}\n", "variable inconnue"),
        ("Objet : a\nContient : rien\n\n[[si inconnue]]x[[/si]]\n", "variable inconnue"),
        ("Objet : {{patient.nom}}\nContient : patient\n\nx\n", "aucune donnée du patient"),
        ("Objet : a\nContient : rien\n\n{{patient.nom}}\n", "ne peut pas en nommer"),
        ("Objet : a\nContient : patient\n\n[[si interet]]x\n", "n’est pas fermé"),
        ("Objet : a\nContient : patient\n\nx[[/si]]\n", "sans bloc ouvert"),
        ("Objet : a\nContient : patient\n\n{{patient.nom}\n", "mal formée"),
        ("Objet : a\nContient : patient\n\n[[sinon]]\n", "mal formée"),
        ("Objet : a\n\nx\n", "incomplet"),
        ("Bonjour\n", "ligne d’en-tête"),
    ],
)
def test_a_wrong_text_is_refused_when_loaded(source, reason):
    with pytest.raises(Fault, match=reason) as refused:
        templates.parse("X", source)
    assert refused.value.code == "message-template"


def test_a_neutral_variant_must_exist_and_name_nobody(tmp_path):
    (tmp_path / "A.txt").write_text("Objet : a\nContient : patient\nVariante neutre : B\n\nx\n", encoding="utf-8")
    with pytest.raises(Fault, match="absente ou nominative"):
        templates.load(tmp_path)


def test_a_missing_value_is_a_fault_not_a_hole():
    with pytest.raises(Fault, match=r"mt\.nom") as refused:
        m1(**{"mt.nom": " \r\n "})
    assert refused.value.code == "message-value-missing"
    with pytest.raises(Fault, match="inconnu") as refused:
        m1(inconnu="x")
    assert refused.value.code == "message-value-unknown"


def test_values_bring_no_line_no_mark_and_no_direction():
    body = m1(probleme="Tumeur\r\nBcc: x@y.example\x00\x1b[2J\u2028{{patient.nom}} [[si webconf]] \u202egnp.exe").body
    line = next(text for text in body.splitlines() if text.startswith("  Motif"))
    assert line == "  Motif     : Tumeur Bcc: x@y.example[2J {{patient.nom}} [[si webconf]] gnp.exe"


def test_outside_mssante_the_neutral_text_or_nothing():
    assert templates.variant_for("M1", inside_mssante=False) is None
    assert templates.variant_for("M2", inside_mssante=False) is None
    neutral = templates.variant_for("M5", inside_mssante=False)
    assert neutral is not None
    assert not neutral.names_patient
    inside = templates.variant_for("M5", inside_mssante=True)
    assert inside is not None
    assert inside.code == "M5"


@pytest.mark.parametrize(("gender", "word"), [("male", "né"), ("female", "née"), ("unknown", "né(e)"), (None, "né(e)")])
def test_birth_agrees_with_the_sex(gender, word):
    assert french.born(gender) == word


@pytest.mark.parametrize(
    ("birth", "used", "gender", "printed"),
    [
        ("Dupont", None, "male", "DUPONT"),
        ("Martin", "Dupont", "female", "DUPONT (née MARTIN)"),
        ("Éloïse", "éloïse", "female", "ÉLOÏSE"),
        ("", "Dupont", None, "DUPONT"),
    ],
)
def test_the_used_name_comes_first(birth, used, gender, printed):
    assert french.patient_surname(birth, used, gender) == printed


def test_dates_and_hours_in_french():
    assert french.long_day(date(2023, 5, 11)) == "jeudi 11 mai 2023"
    assert french.long_day(date(2024, 8, 1)) == "jeudi 1er août 2024"
    assert french.short_date(date(1965, 3, 1)) == "01/03/1965"
    assert french.hour(time(18, 30)) == "18h30"
    assert french.hour(time(8, 5), spaced=True) == "08\N{NO-BREAK SPACE}h\N{NO-BREAK SPACE}05"


@pytest.mark.parametrize(
    ("start", "zone", "reader", "note"),
    [
        ("2023-05-11T16:30", "Europe/Paris", "America/Martinique", "(heure de Paris ; 12h30 à La Martinique)"),
        ("2023-05-11T16:30", "Europe/Paris", "Europe/Paris", ""),
        ("2023-05-11T16:30", "Europe/Paris", None, ""),
        (
            "2023-05-12T00:00",
            "Pacific/Tahiti",
            "Europe/Paris",
            "(heure de Tahiti ; vendredi 12 mai 2023 à 02h00 en métropole)",
        ),
        ("2023-01-11T16:30", "America/Martinique", "America/Guadeloupe", ""),
    ],
)
def test_a_reader_of_another_zone_sees_his_own_hour(start, zone, reader, note):
    instant = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert french.zone_note(instant, zone, reader) == note


def test_the_zone_note_follows_the_hour_after_one_space():
    body = m1(**{"seance.note_fuseau": "(heure de Paris ; 12h30 à La Martinique)"}).body
    assert "  Date      : jeudi 11 mai 2023 à 18h30 (heure de Paris ; 12h30 à La Martinique)\n" in body


@pytest.fixture
def own(tmp_path):
    """Writes one text of an operator, as a change of the project's, and reads the folder."""

    def written(code="M1", *, old="", new="", whole=None):
        usual = (mappings_dir() / "messages" / f"{code}.txt").read_text(encoding="utf-8") if whole is None else whole
        assert old in usual
        (tmp_path / f"{code}.txt").write_text(usual.replace(old, new, 1) if old else usual, encoding="utf-8")
        return templates.overlay(tmp_path)

    return written


def test_an_operator_s_text_takes_the_place_of_the_project_s(own):
    texts = own(
        old="Rien ne vous est imposé.", new="[[si webconf]]Visio : {{lien_webconf}}. [[/si]]Vous êtes {{mt.nom}}."
    )
    assert "Vous êtes DURANT." in texts["M1"].render(VALUES).body
    remote = {"webconf": True, "lien_webconf": "https://v.example"}
    assert "Visio : https://v.example. Vous" in texts["M1"].render(VALUES | remote).body
    assert texts["M2"] == templates.template("M2")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"old": "{{mt.nom}}", "new": "{{mt.nomm}}"}, "variable inconnue « mt.nomm »"),
        ({"old": "{{mt.nom}}", "new": "{{lien_cr}}"}, "n’a pas de valeur pour « lien_cr »"),
        ({"old": "{{mt.nom}}", "new": "{{probleme}}"}, "« probleme » peut manquer"),
        ({"old": "{{mt.nom}}", "new": "{{lien_webconf}}"}, "« lien_webconf » peut manquer"),
        ({"old": "[[/si]]", "new": ""}, "n’est pas fermé"),
        ({"old": "préalable RCP", "new": "de {{patient.nom}}"}, "aucune donnée du patient"),
        ({"old": "Médecin –", "new": "XDM/1.0/DDM+"}, "objet d’un envoi de document"),
        ({"code": "M6", "old": "XDM/1.0/DDM+", "new": ""}, "objet d’un envoi de document"),
        ({"code": "M77", "whole": "Objet : a\nContient : rien\n\nb\n"}, "aucun message ne porte ce code"),
        ({"code": "M5", "old": "Variante neutre : M5n", "new": "Variante neutre : M1"}, "absente ou nominative"),
    ],
)
def test_what_could_not_be_sent_is_refused_at_the_start(own, changes, said):
    with pytest.raises(Fault, match=said) as refused:
        own(**changes)
    assert refused.value.code == "message-template"


def test_all_faults_of_a_folder_are_said_at_once(own, tmp_path):
    (tmp_path / "M2.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(Fault, match=r"M1 : variable inconnue.*M2 : fichier illisible"):
        own(old="{{mt.nom}}", new="{{x}}")


@given(st.sets(st.sampled_from(sorted(templates.VARIABLES))), st.sampled_from(["M1", "M2", "M6", "M5"]))
@settings(max_examples=60, deadline=None)
def test_what_was_loaded_can_be_sent_whenever_the_project_s_own_can(absent, code):
    """Every variable, in and out of its block: refused, or rendered with whatever values the project's text takes."""
    usual = (mappings_dir() / "messages" / f"{code}.txt").read_text(encoding="utf-8")
    values = {name: "" if name in absent else "x" for name in templates.VARIABLES}
    try:
        templates.load()[code].render(values)
    except Fault:
        return  # this message is never sent with such values
    for name in sorted(templates.VARIABLES):
        for mark in (f"{{{{{name}}}}}", f"[[si {name}]]{{{{{name}}}}}[[/si]]"):
            try:
                text = templates._own(code, usual + mark)
            except Fault:
                continue
            text.render(values)


def test_a_process_sends_the_operator_s_texts_and_keeps_those_in_use_when_new_ones_are_wrong(tmp_path):
    usual = (mappings_dir() / "messages" / "M2.txt").read_text(encoding="utf-8")
    (tmp_path / "M2.txt").write_text(usual.replace("Bonjour", "Cher confrère"), encoding="utf-8")
    try:
        templates.use(tmp_path)
        (tmp_path / "M2.txt").write_text(usual + "{{x}}", encoding="utf-8")
        with pytest.raises(Fault):
            templates.use(tmp_path)
        assert "Cher confrère" in templates.template("M2").render(VALUES).body
    finally:
        templates.use(None)
    assert "Cher" not in templates.template("M2").render(VALUES).body


def test_outside_mssante_goes_the_text_that_names_nobody_or_nothing(store):
    values = {"validation.date": "11/05/2023", "lien_plateforme": "https://aquitaine.dcc.example"}
    with store.session() as session:
        told = letters.compose(session, "M5", values, "isabelle@example.org")
        assert told.body.startswith("Bonjour,\n\nUn compte rendu")
        with pytest.raises(InvalidContent) as refused:
            letters.compose(session, "M1", VALUES, "isabelle@example.org")
        assert refused.value.code == "mail-hors-mssante"
        assert "DUPONT" in letters.compose(session, "M1", VALUES, "p.durant@medecin.MSSANTE.fr").body
        facts = {"source": "essai", "as_of": date(2026, 1, 1)}
        place = Organisation(id=uuid7(), finess="990000010", idnst="1990000010", name="Cabinet", kind="autre", **facts)
        session.add(place)
        session.flush()
        session.add(Mailbox(address="p.durant@cabinet.example", kind="ORG", organisation_id=place.id, **facts))
        session.flush()
        assert "DUPONT" in letters.compose(session, "M1", VALUES, "P.Durant@cabinet.example").body
