"""Extractions of the national directory: what is read, applied, refused, and what a crash leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
import uuid
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gateway.errors import Conflict, InvalidContent
from gateway.model.directory import DirectoryImport, Mailbox, Organisation, PracticeRole, Practitioner
from gateway.model.store import utcnow
from gateway.rcp import directory
from gateway.rcp.access import SYSTEM
from gateway.rcp.directory import OrganisationFacts, PracticeFacts, ProfessionalFacts
from gateway.rcp.directory_import import import_file

SAMPLES = Path(__file__).parents[2] / "annuaire"
PEOPLE = SAMPLES / "PS_LibreAcces_Personne_activite_202609020800.sample.txt"
BOXES = SAMPLES / "Extraction_Correspondance_MSSante_202609020800.sample.txt"
HEADER = PEOPLE.read_text(encoding="utf-8").splitlines()[0].rstrip("|").split("|")
BOX_HEADER = BOXES.read_text(encoding="utf-8").splitlines()[0].split("|")
# Eleven digits with a right key each.
NUMBERS = [
    f"{root}{key}"
    for root in range(9970000100, 9970000160)
    for key in range(10)
    if not directory.IdNatPs.from_wire(f"8{root}{key}").faults
]


def person(number, family="EXEMPLE", given="Alice", *, finess="990000010", **more):
    said = {
        "Type d'identifiant PP": "8",
        "Identifiant PP": number,
        "Identification nationale PP": "8" + number,
        "Code civilité d'exercice": "DR",
        "Nom d'exercice": family,
        "Prénom d'exercice": given,
        "Code profession": "10",
        "Code type savoir-faire": "S",
        "Code savoir-faire": "SM36",
        "Numéro FINESS site": finess,
        "Raison sociale site": "CHU FICTIF",
    }
    return said | more


def box(address, number=None, *, kind="PER", finess="990000010"):
    who = {"Identifiant PP": number, "Identification nationale PP": "8" + number} if number else {}
    place = {"Type identifiant structure": "1", "Identification Structure": finess} if finess else {}
    names = {"Nom d'exercice": "EXEMPLE", "Prénom d'exercice": "Alice"} if number else {}
    return {"Type de BAL": kind, "Adresse BAL": address, "Raison Sociale structure BAL": "CHU", **who, **place, **names}


def lines(rows, header=HEADER, *, trailing="|"):
    return [header_line(header), *("|".join(row.get(name, "") for name in header) + trailing for row in rows)]


def header_line(header):
    return "|".join(header)


@pytest.fixture
def written(tmp_path):
    """Write one extraction."""

    def write(content, *, day="20260902", stem="PS_LibreAcces_Personne_activite"):
        path = tmp_path / f"{stem}_{day}0800.txt"
        body = content if isinstance(content, bytes) else ("\n".join(content) + "\n").encode()
        path.write_bytes(body)
        return path

    return write


def _all(store, kind):
    with store.session() as session:
        return list(session.scalars(select(kind)).unique())


def _one(store, number):
    with store.session() as session:
        return directory.practitioner_of(session, number)


def test_the_published_samples_become_a_person_his_places_and_the_mailboxes(steps, store):
    told = import_file(steps, PEOPLE)
    assert (told.rows, told.rejected, told.gone, told.again) == (2, 0, 0, False)
    boxes = import_file(steps, BOXES)
    assert (boxes.rows, boxes.skipped) == (2, 0)
    with store.session() as session:
        who = directory.practitioner_of(session, "99700000013")
        assert (who.family, who.given, who.title, who.profession) == ("EXEMPLE d''ARTAGNAN", "Alice", "DR", "10")
        assert (who.rpps, who.speciality, who.source, who.as_of) == (
            "99700000013",
            "SM36",
            "annuaire-ps",
            date(2026, 9, 2),
        )
        # A stray quote of the line before swallows nothing.
        assert {role.organisation.finess for role in who.roles} == {"990000010", "990000028"}
        place = directory.organisation_of(session, "990000010")
        assert (place.name, place.idnst, place.postal_code) == ("CHU FICTIF DE DEMONSTRATION", "1990000010", "99000")
        assert place.address_line == "1 Avenue DES TESTS"
        assert [(one.kind, one.address) for one in who.mailboxes] == [("PER", "alice.exemple@chu-fictif.mssante.fr")]
        shared = session.scalars(select(Mailbox).where(Mailbox.kind == "ORG")).one()
        assert (shared.address, shared.organisation_id) == ("rcp.secretariat@chu-fictif.mssante.fr", place.id)
        assert shared.practitioner_id is None


def test_a_zip_as_it_is_published_is_read_and_the_same_file_twice_does_nothing(steps, store, tmp_path):
    packed = tmp_path / "PS_LibreAcces.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(PEOPLE, PEOPLE.name)
        archive.writestr("PS_LibreAcces_SavoirFaire_202609020800.txt", "autre chose")
    assert not import_file(steps, packed).again
    again = import_file(steps, packed)
    assert again.again
    assert len(_all(store, DirectoryImport)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("|\n", "\n"),
        lambda text: text.replace("Numéro Voie (coord. structure)", "Numéro Voie"),
        lambda text: text.rstrip("\n"),
    ],
    ids=["bom", "crlf", "no-trailing-separator", "no-suffix", "no-last-newline"],
)
def test_what_drifts_in_a_file_changes_nothing(steps, store, written, change):
    import_file(steps, written(change(PEOPLE.read_text(encoding="utf-8")).encode()))
    with store.session() as session:
        assert directory.organisation_of(session, "990000010").address_line == "1 Avenue DES TESTS"
        assert len(directory.practitioner_of(session, "99700000013").roles) == 2


def test_columns_in_another_order_are_found_by_their_names(steps, store, written):
    import_file(steps, written(lines([person(NUMBERS[0], "ORDRE")], HEADER[::-1])))
    assert _one(store, NUMBERS[0]).family == "ORDRE"


def test_a_file_without_a_needed_column_is_refused_by_its_name(steps, store, written):
    header = [name for name in HEADER if name != "Numéro FINESS site"]
    with pytest.raises(InvalidContent, match="numero finess site") as refusal:
        import_file(steps, written(lines([person(NUMBERS[0])], header)))
    assert refusal.value.code == "annuaire-colonnes"
    assert _all(store, Practitioner) == []


@pytest.mark.parametrize(
    "bad",
    [
        b"8|trop|court",
        b"\xff\xfe" + b"|" * 55,
        b"8|1|81\x00" + b"|" * 53,
        b"|" * 55,
        "|".join(
            person(NUMBERS[1], "".join(map(chr, range(0x4E00, 0x6000)))).get(name, "") for name in HEADER
        ).encode(),
        "|".join(person(NUMBERS[1], "LEFÈVRE").get(name, "") for name in HEADER).encode("latin-1"),
    ],
    ids=["short", "not-utf-8", "nul", "nobody", "endless-name", "latin-1"],
)
def test_one_malformed_line_in_a_thousand_is_counted_two_refuse_the_file(steps, store, written, bad):
    good = [line.encode() for line in lines([person(NUMBERS[0])] * 999)]
    told = import_file(steps, written(b"\n".join([*good, bad]) + b"\n"))
    assert (told.rows, told.rejected) == (999, 1)
    with pytest.raises(InvalidContent) as refusal:
        import_file(steps, written(b"\n".join([*good, bad, bad]) + b"\n", day="20260903"))
    assert refusal.value.code == "annuaire-lignes"
    assert _one(store, NUMBERS[0]).as_of == date(2026, 9, 2)


@pytest.mark.parametrize("ending", ["\\", "\\N", "\\.", "a\tb", 'a"b', "''", "é" * 200])
def test_signs_that_copy_knows_stay_what_they_are(steps, store, written, ending):
    import_file(steps, written(lines([person(NUMBERS[0], "X" + ending)])))
    assert _one(store, NUMBERS[0]).family == "X" + ending.replace("\t", " ")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("annuaire.txt", b"x", "annuaire-nom"),
        ("PS_LibreAcces_Personne_activite_202613020800.txt", b"x", "annuaire-nom"),
        ("PS_LibreAcces_Personne_activite_209901010800.txt", b"x", "annuaire-date"),
        ("PS_LibreAcces_Personne_activite_202609020800.txt", b"", "annuaire-illisible"),
        ("PS_LibreAcces_Personne_activite_202609020800.txt", b"a" * 3_000_000, "annuaire-lignes"),
        ("PS_LibreAcces_Personne_activite_202609020800.txt", b"\x00\xff\n", "annuaire-illisible"),
        ("PS_LibreAcces_Personne_activite_202609020800.txt", b"\x00\n", "annuaire-colonnes"),
    ],
    ids=["name", "month-13", "future", "empty", "endless-line", "bytes", "nul"],
)
def test_what_is_no_extraction_is_refused(steps, store, tmp_path, name, content, code):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidContent) as refusal:
        import_file(steps, path)
    assert refusal.value.code == code
    assert _all(store, DirectoryImport) == []


def test_a_file_in_latin_1_is_refused_whole(steps, store, written):
    said = lines([person(number, "LEFÈVRE") for number in NUMBERS[:30]])
    for content in ("\n".join(said).encode("latin-1"), said[0].encode() + "\n".join(["", *said[1:]]).encode("latin-1")):
        with pytest.raises(InvalidContent) as refusal:
            import_file(steps, written(content))
        assert refusal.value.code in {"annuaire-illisible", "annuaire-lignes"}
    assert _all(store, Practitioner) == _all(store, DirectoryImport) == []


def test_columns_that_we_do_not_know_are_left_alone(steps, store, written):
    header = ["Nouvelle colonne", *HEADER[:8], "Autre colonne", *HEADER[8:], "Nom d'exercice"]
    rows = [person(number, "AJOUT") | {"Nouvelle colonne": "x", "Autre colonne": "y"} for number in NUMBERS[:3]]
    assert import_file(steps, written(lines(rows, header))).rows == 3
    assert _one(store, NUMBERS[0]).family == "AJOUT"


class _Zeros:
    """A member of a ZIP that is written without ever being there whole."""

    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = min(self.left, size if size >= 0 else self.left)
        self.left -= size
        return b"a" * size


def _bomb(path, size, declared=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(PEOPLE.name, "w", force_zip64=True) as member:
            shutil.copyfileobj(_Zeros(size), member, 1 << 20)
        if declared is not None:
            archive.infolist()[0].file_size = declared  # what the directory of the archive says


@pytest.mark.parametrize(
    ("size", "declared", "code"),
    [
        (100 << 20, None, "annuaire-lignes"),  # one line
        (1 << 20, 100 << 30, "annuaire-volume"),
        (100 << 20, 1 << 10, "annuaire-illisible"),  # no more is unpacked than was declared, and its sum is wrong
    ],
    ids=["a-line-of-100-MiB", "100-GiB-declared", "more-than-declared"],
)
def test_a_zip_bomb_is_refused_before_it_is_unpacked(steps, store, tmp_path, size, declared, code):
    path = tmp_path / "PS_LibreAcces.zip"
    _bomb(path, size, declared)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidContent) as refusal:
            import_file(steps, path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert refusal.value.code == code
    assert _all(store, DirectoryImport) == []


def test_a_zip_with_two_extractions_none_or_an_encrypted_one_is_refused(steps, store, tmp_path):
    path = tmp_path / "a.zip"
    for names in ((), ("LISEZMOI.txt",), (PEOPLE.name, f"dossier/{BOXES.name}")):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "x")
        with pytest.raises(InvalidContent) as refusal:
            import_file(steps, path)
        assert refusal.value.code == "annuaire-nom"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(PEOPLE.name, "x")
    said = bytearray(path.read_bytes())
    said[6] |= 1  # the flag of encryption, in both headers of the member
    said[said.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(said)
    with pytest.raises(InvalidContent) as refusal:
        import_file(steps, path)
    assert refusal.value.code == "annuaire-illisible"
    assert _all(store, DirectoryImport) == []


def test_a_zip_that_is_cut_or_damaged_leaves_nothing(steps, store, tmp_path):
    whole = tmp_path / "a.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(PEOPLE.name, "\n".join(lines([person(number) for number in NUMBERS[:50]])))
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF
    (tmp_path / "b.zip").write_bytes(damaged)
    (tmp_path / "PS_LibreAcces_Personne_activite_202609020800.txt").write_bytes(whole.read_bytes()[:200])
    for bad in ("b.zip", "PS_LibreAcces_Personne_activite_202609020800.txt"):
        with pytest.raises(InvalidContent):
            import_file(steps, tmp_path / bad)
    assert _all(store, Practitioner) == []


def test_a_number_with_a_wrong_key_is_kept_and_counted(steps, store, written):
    wrong = NUMBERS[0][:-1] + str((int(NUMBERS[0][-1]) + 1) % 10)
    told = import_file(steps, written(lines([person(wrong), person(wrong, finess="990000028"), person(NUMBERS[1])])))
    assert told.flagged == 1
    assert _one(store, wrong) is not None


def test_what_vanishes_is_dated_never_deleted_and_comes_back(steps, store, written):
    people = [person(number) for number in NUMBERS[:40]]
    import_file(steps, written(lines([*people, person(NUMBERS[0], finess="990000028")])))
    told = import_file(steps, written(lines(people[:-1]), day="20260903"))
    assert told.gone == 4  # a person, his situation, another situation and its place
    last = _one(store, NUMBERS[39])
    assert (last.gone_on, last.roles[0].gone_on) == (date(2026, 9, 3), date(2026, 9, 3))
    import_file(steps, written(lines(people), day="20260904"))
    last = _one(store, NUMBERS[39])
    assert (last.gone_on, last.roles[0].gone_on) == (None, None)
    assert len(_all(store, Practitioner)) == 40


def test_more_than_five_in_a_hundred_that_vanish_change_nothing_unless_forced(steps, store, written):
    people = [person(number) for number in NUMBERS[:40]]
    import_file(steps, written(lines(people)))
    # Two of forty are five in a hundred: allowed. Three are more.
    fewer = written(lines([*people[:37], *people[:3]]), day="20260903")
    with pytest.raises(Conflict) as refusal:
        import_file(steps, fewer)
    assert refusal.value.code == "annuaire-disparus"
    assert "3 personnes sur 40" in refusal.value.text
    assert all(one.gone_on is None and one.as_of == date(2026, 9, 2) for one in _all(store, Practitioner))
    assert [one.reason for one in _all(store, DirectoryImport) if one.state == "refuse"] == ["annuaire-disparus"]
    assert import_file(steps, fewer, force=True).gone == 6
    two = written(lines([*people[:35], *people[:5]]), day="20260904")
    assert import_file(steps, two, force=True).gone == 4


def test_a_file_much_smaller_than_the_last_is_not_even_read(steps, store, written):
    people = [person(number) for number in NUMBERS[:20]]
    import_file(steps, written(lines(people)))
    with pytest.raises(Conflict) as refusal:
        import_file(steps, written(lines(people[:3]), day="20260903"))
    assert refusal.value.code == "annuaire-taille"
    assert len(_all(store, DirectoryImport)) == 1


def test_a_file_older_than_the_last_one_is_refused(steps, store, written):
    import_file(steps, written(lines([person(NUMBERS[0])]), day="20260903"))
    with pytest.raises(Conflict) as refusal:
        import_file(steps, written(lines([person(NUMBERS[0], "AVANT")]), day="20260902"))
    assert refusal.value.code == "annuaire-ancien"
    assert _one(store, NUMBERS[0]).family == "EXEMPLE"


def test_what_another_source_said_later_is_left_as_it_is(steps, store, written):
    later, earlier = date(2026, 9, 10), date(2026, 8, 1)
    for number, as_of in ((NUMBERS[0], later), (NUMBERS[1], earlier)):
        facts = ProfessionalFacts(
            rpps=number, family="AUTRE", given="Source", practices=(PracticeFacts(finess="990000028"),)
        )
        place = OrganisationFacts(finess="990000028", name="AUTRE")

        def verb(step, facts=facts, place=place, as_of=as_of):
            directory.put_organisation(step, place, source="essai", as_of=as_of)
            directory.put_professional(step, facts, source="essai", as_of=as_of)

        steps.run(SYSTEM, verb)
    import_file(steps, written(lines([person(number, finess="990000028") for number in NUMBERS[:2]])))
    assert [(_one(store, n).family, _one(store, n).source) for n in NUMBERS[:2]] == [
        ("AUTRE", "essai"),
        ("EXEMPLE", "annuaire-ps"),
    ]
    with store.session() as session:
        assert directory.organisation_of(session, "990000028").name == "AUTRE"
    # What only the other source knows is no business of the file.
    assert all(one.gone_on is None for one in _all(store, Practitioner))


def test_several_lines_of_one_person_give_the_same_whatever_their_order(steps, store, written):
    rows = [
        person(NUMBERS[0], **{"Code savoir-faire": "C45", "Code type savoir-faire": "C"}),
        person(NUMBERS[0], **{"Code savoir-faire": "SM54"}),
        person(NUMBERS[0], finess="", **{"Numéro SIRET site": "35600000000048"}),
        person(NUMBERS[0], finess="", **{"Identifiant technique de la structure": "R10100000012345"}),
        person(NUMBERS[0], finess=""),
    ]

    def said():
        with store.session() as session:
            who = directory.practitioner_of(session, NUMBERS[0])
            return who.speciality, {(one.organisation and one.organisation.idnst, one.speciality) for one in who.roles}

    import_file(steps, written(lines(rows)))
    first = said()
    assert first == (
        "SM36",
        {
            ("1990000010", "C45"),
            ("1990000010", "SM54"),
            ("335600000000048", "SM36"),
            ("410100000012345", "SM36"),
            (None, "SM36"),
        },
    )
    told = import_file(steps, written(lines(rows[::-1]), day="20260903"))
    assert (told.gone, said()) == (0, first)
    assert len(_all(store, PracticeRole)) == 5


def test_mailboxes_lines_that_repeat_or_lie_outside_the_trust_space(steps, store, written):
    stem = "Extraction_Correspondance_MSSante"
    rows = [
        box("Un@a.mssante.fr", NUMBERS[0]),
        box("un@A.mssante.fr", NUMBERS[0], finess="990000028"),
        box("un@a.mssante.fr", NUMBERS[1]),
        box("service@a.mssante.fr", kind="ORG"),
        box("service@a.mssante.fr", kind="ORG"),
        box("medecin@gmail.example", NUMBERS[2]),
        box("autre@a.mssante.fr", kind="XXX"),
        box("personne@a.mssante.fr", kind="ORG", finess=""),
    ]
    told = import_file(steps, written(lines(rows, BOX_HEADER, trailing=""), stem=stem))
    assert (told.rows, told.rejected, told.skipped) == (5, 0, 3)
    kept = sorted((one.address, one.kind, one.practitioner_id is None) for one in _all(store, Mailbox))
    assert kept == [
        ("service@a.mssante.fr", "ORG", True),
        ("un@a.mssante.fr", "PER", False),
        ("un@a.mssante.fr", "PER", False),
    ]
    # Their holders had been in no file yet.
    assert {one.idnps for one in _all(store, Practitioner)} == {"8" + number for number in NUMBERS[:2]}
    with pytest.raises(Conflict, match="1 boîtes aux lettres sur 3") as refusal:
        import_file(steps, written(lines([rows[0], *rows[:2], *rows[3:]], BOX_HEADER), stem=stem, day="20260903"))
    assert refusal.value.code == "annuaire-disparus"
    assert all(one.gone_on is None for one in _all(store, Mailbox))


def test_a_box_that_vanishes_is_dated_and_one_that_bounced_is_usable_when_a_later_file_names_it(steps, store, written):
    stem = "Extraction_Correspondance_MSSante"
    rows = [box(f"n{place}@a.mssante.fr", number) for place, number in enumerate(NUMBERS[:30])]
    import_file(steps, written(lines(rows, BOX_HEADER), stem=stem))
    with store.session() as session:
        for name, bounced in (("n0", "2026-09-02"), ("n1", "2026-09-03"), ("n2", "2026-09-02")):
            values = {"address": f"{name}@a.mssante.fr", "bounced": f"{bounced} 10:00+00"}
            session.execute(text("UPDATE mailbox SET unusable_since = :bounced WHERE address = :address"), values)
        session.commit()
    import_file(steps, written(lines(rows[1:], BOX_HEADER), stem=stem, day="20260903"))
    kept = {one.address: one for one in _all(store, Mailbox)}
    assert len(kept) == 30
    assert kept["n0@a.mssante.fr"].gone_on == date(2026, 9, 3)
    unusable = [name for name in ("n0", "n1", "n2") if kept[f"{name}@a.mssante.fr"].unusable_since]
    # Not named any more; named by a file that was made before the bounce was known; named later.
    assert unusable == ["n0", "n1"]
    assert kept["n2@a.mssante.fr"].gone_on is None


def test_a_file_says_who_wants_documents_on_paper(steps, store, written):
    stem = "Extraction_Correspondance_MSSante"
    said = {"a": "O", "b": "N", "c": "", "d": "x"}
    rows = [box(f"{name}@a.mssante.fr", NUMBERS[0]) | {"Dématérialisation": sign} for name, sign in said.items()]
    import_file(steps, written(lines(rows, BOX_HEADER), stem=stem))
    assert {one.address[0]: one.paperless for one in _all(store, Mailbox)} == {
        "a": True,
        "b": False,
        "c": None,
        "d": None,
    }


def test_two_imports_at_once_one_is_told_to_wait(steps, store, written):
    path = written(lines([person(NUMBERS[0])]))
    with store.engine.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(4207208)"))
        with pytest.raises(Conflict) as refusal:
            import_file(steps, path)
        assert refusal.value.code == "annuaire-en-cours"
        other.execute(text("SELECT pg_advisory_unlock(4207208)"))
    assert import_file(steps, path).rows == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from gateway.exchange.blobs import open_store
from gateway.exchange.outbox import Outbox
from gateway.model.audit import AuditTrail
from gateway.model.store import Store
from gateway.rcp import directory_import
from gateway.rcp.step import DomainClock, Steps

url, path, blobs, where, after = sys.argv[1:]
store = Store(url)
steps = Steps(store, DomainClock(), AuditTrail(b"x" * 32), Outbox(open_store(blobs)), lambda step, roots: None)
seen = 0
def told(phase, done, total):
    global seen
    seen += phase == where
    if phase == where and seen > int(after):
        os.kill(os.getpid(), signal.SIGKILL)
directory_import.import_file(steps, Path(path), told=told)
"""


@pytest.mark.parametrize(("phase", "after"), [("lecture", 0), *(("application", place) for place in (0, 5, 10, 15))])
def test_a_kill_anywhere_leaves_all_or_nothing_and_the_next_run_ends_it(
    steps, store, written, tmp_path, database_url, phase, after
):
    import_file(steps, written(lines([person(number, "AVANT") for number in NUMBERS[:3]]), day="20260901"))
    path = written(lines([person(number, "APRES") for number in NUMBERS[:4]]))
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    told = subprocess.run(
        [sys.executable, script, database_url, path, f"file://{tmp_path / 'b'}", phase, str(after)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        check=False,
    )
    assert told.returncode == -signal.SIGKILL, told.stderr.decode()
    names = {one.family for one in _all(store, Practitioner)}
    assert names in ({"AVANT"}, {"APRES"})
    seen = []
    result = import_file(steps, path, told=lambda phase, *_: seen.append(phase))
    assert {one.family for one in _all(store, Practitioner)} == {"APRES"}
    assert len(_all(store, Practitioner)) == 4
    # What was staged is not read again; what was applied neither.
    assert ("lecture" in seen) == (phase == "lecture")
    assert result.again == (names == {"APRES"})
    with store.session() as session:
        assert session.scalar(text("SELECT count(*) FROM staged_practice")) == 0


def test_a_crash_of_the_server_that_empties_the_staged_table_reads_the_file_again(steps, store, written, monkeypatch):
    from gateway.rcp import directory_import

    path = written(lines([person(NUMBERS[0])]))
    with monkeypatch.context() as patch:
        patch.setattr(directory_import, "_apply", lambda *_a, **_k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_file(steps, path)
    assert [one.state for one in _all(store, DirectoryImport)] == ["charge"]
    with store.session() as session:
        session.execute(text("TRUNCATE staged_practice"))  # what PostgreSQL does to unlogged tables
        session.commit()
    assert import_file(steps, path).rows == 1
    assert [one.state for one in _all(store, DirectoryImport)] == ["applique"]


def test_what_fhir_shows_follows_and_nothing_else_becomes_a_resource(make_steps, store, written, blobs):
    from gateway.fhir.represent import Representer
    from gateway.model.representation import TABLES

    steps = make_steps(represent=Representer(blobs))
    people = [person(number) for number in NUMBERS[:40]]
    import_file(steps, written(lines(people)))
    table = TABLES["Practitioner"]

    def versions():
        with store.session() as session:
            found = session.execute(select(table.c.id, table.c.version, table.c.body).order_by(table.c.version))
            return [(row.id, row.version, b'"active":false' in row.body, b"NOUVEAU" in row.body) for row in found]

    assert versions() == []
    shown = [_one(store, NUMBERS[0]), _one(store, NUMBERS[39])]
    steps.run(SYSTEM, lambda step: step.touch(*shown))
    assert {row[1:] for row in versions()} == {(1, False, False)}
    import_file(steps, written(lines(people), day="20260903"))
    assert len(versions()) == 2
    people[0] = person(NUMBERS[0], "NOUVEAU")
    import_file(steps, written(lines(people[:-1]), day="20260904"))
    assert sorted(versions()[2:]) == sorted([(str(shown[0].id), 2, False, True), (str(shown[1].id), 2, True, False)])


def test_the_keys_of_what_is_imported_are_uuids_of_version_7(steps, store, written):
    import_file(steps, written(lines([person(number) for number in NUMBERS])))
    keys = [one.id for one in _all(store, Practitioner)]
    assert len(set(keys)) == len(NUMBERS)
    assert {(key.version, key.variant) for key in keys} == {(7, uuid.RFC_4122)}
    made = [datetime.fromtimestamp((key.int >> 80) / 1000, UTC) for key in keys]
    assert all(abs(utcnow() - at) < timedelta(minutes=10) for at in made)


def test_what_a_later_file_repeats_is_not_written_again(steps, store, written):
    """A day repeats two million lines of the day before: what nothing changes is neither written nor locked."""
    stem = "Extraction_Correspondance_MSSante"

    def bring(day, *, family, structure, kind):
        known = [person(number) for number in NUMBERS[:20]]
        other = person(NUMBERS[20], family, finess="990000028", **{"Raison sociale site": structure})
        import_file(steps, written(lines([*known, other]), day=day))
        boxes = [box(f"n{place}@a.mssante.fr", number) for place, number in enumerate(NUMBERS[:20])]
        boxes += [box("autre@a.mssante.fr", NUMBERS[20], kind=kind)]
        import_file(steps, written(lines(boxes, BOX_HEADER), stem=stem, day=day))
        with store.session() as session:
            return {
                table: dict(
                    session.execute(
                        text(f"SELECT id, (CAST(xmin AS text), CAST(xmax AS text), as_of) FROM {table}")
                    ).all()
                )
                for table in ("practitioner", "organisation", "practice_role", "mailbox")
            }

    first = bring("20260902", family="AVANT", structure="AVANT", kind="PER")
    second = bring("20260903", family="APRÈS", structure="APRÈS", kind="CAB")
    changed = {table: [key for key in rows if second[table][key] != rows[key]] for table, rows in first.items()}
    assert {table: len(rows) for table, rows in second.items()} == {table: len(rows) for table, rows in first.items()}
    assert {table: len(keys) for table, keys in changed.items()} == {
        "practitioner": 1,
        "organisation": 1,
        "practice_role": 0,
        "mailbox": 1,
    }
    assert _one(store, NUMBERS[20]).family == "APRÈS"
    assert _one(store, NUMBERS[20]).as_of == date(2026, 9, 3)
    assert _one(store, NUMBERS[0]).as_of == date(2026, 9, 2)
    # The next file knows what the first one said: who is missing there is gone, whichever file named him last.
    import_file(steps, written(lines([person(number) for number in NUMBERS[:20]]), day="20260904"))
    assert _one(store, NUMBERS[20]).gone_on == date(2026, 9, 4)
    assert _one(store, NUMBERS[0]).gone_on is None


def test_a_place_that_no_line_names_any_more_is_dated(steps, store, written):
    rows = [person(number) for number in NUMBERS[:20]]
    import_file(steps, written(lines([*rows, person(NUMBERS[0], finess="990000028")])))
    import_file(steps, written(lines(rows), day="20260903"))
    gone = {one.finess: one.gone_on for one in _all(store, Organisation)}
    assert gone == {"990000010": None, "990000028": date(2026, 9, 3)}
