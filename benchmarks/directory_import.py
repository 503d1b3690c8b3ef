"""The national directory: lines imported into its tables, beside a bare COPY of the same bytes in the same run.

Run: ``python benchmarks/directory_import.py [--rows 2000000]``. Fictitious people, three lines to two of them, numbers
with right keys; a file as it is published (56 columns, a last separator), imported as ``rcp-gateway import-annuaire``
does into the embedded PostgreSQL with fsync on, then the same file a day later (every line known). The limit beside
it: psycopg sends the very bytes of the file to a table of as many text columns, nothing read, shaped, keyed or indexed.
Targets: 2 million lines in under 180 s, under 300 MB in the process that imports; said, not asserted.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

from gateway.exchange.blobs import open_store
from gateway.exchange.outbox import Outbox
from gateway.fhir.represent import Representer
from gateway.model.audit import AuditTrail
from gateway.model.embedded import EmbeddedServer
from gateway.model.store import Store
from gateway.rcp.directory_import import import_file
from gateway.rcp.step import DomainClock, Steps

SAMPLE = Path(__file__).parents[1] / "tests" / "annuaire"
HEADER = (SAMPLE / "PS_LibreAcces_Personne_activite_202609020800.sample.txt").read_text(encoding="utf-8").split("\n")[0]
WIDTH = HEADER.count("|") + 1
FAMILIES = ("EXEMPLE", "D''ESSAI", "LEFÈVRE", "DE LA MAQUETTE", "FICTIF-MARTIN", "OUTIL", "TÉMOIN", "HYPOTHÈSE")
GIVENS = ("Alice", "Bruno", "Chloé", "Denis", "Élodie", "Félix", "Gwenaëlle", "Hugo-Paul")
SPECIALITIES = ("SM26", "SM36", "SM54", "SM04", "SM44", "SM14", "SM05", "SM53")


def key(digits: str) -> str:
    """The Luhn key of a number."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 - place % 2)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def write(path: Path, rows: int) -> None:
    """A file of so many lines; a place for each ten persons."""
    names = HEADER.split("|")
    at = {name: place for place, name in reversed(list(enumerate(names)))}
    fixed = [""] * WIDTH
    for name, value in (
        ("Type d'identifiant PP", "8"),
        ("Code civilité d'exercice", "DR"),
        ("Libellé civilité d'exercice", "Docteur"),
        ("Code civilité", "MME"),
        ("Code profession", "10"),
        ("Libellé profession", "Médecin"),
        ("Code catégorie professionnelle", "C"),
        ("Libellé catégorie professionnelle", "Civil"),
        ("Code type savoir-faire", "S"),
        ("Libellé type savoir-faire", "Spécialité ordinale"),
        ("Code mode exercice", "S"),
        ("Libellé mode exercice", "Salarié"),
        ("Numéro Voie (coord. structure)", "1"),
        ("Libellé type de voie (coord. structure)", "Avenue"),
        ("Libellé Voie (coord. structure)", "DES TESTS"),
        ("Code postal (coord. structure)", "99000"),
        ("Libellé commune (coord. structure)", "VILLE FICTIVE"),
        ("Autorité d'enregistrement", "CNOM/CNOM/ARS"),
        ("Code secteur d'activité", "SA01"),
        ("Libellé secteur d'activité", "Etablissement public de santé"),
    ):
        fixed[at[name]] = value
    # A line of the file ends with one separator more than it has columns; the header's own is its last column here.
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(HEADER + "\n")
        for row in range(rows):
            person = row * 2 // 3
            root = f"99{person:08d}"
            number = root + key(root)
            place = f"99{(person // 10 if row % 3 else person // 7) % 9_999_999:06d}"
            line = fixed.copy()
            line[1], line[2] = number, "8" + number
            line[at["Nom d'exercice"]] = f"{FAMILIES[person % 8]} {person % 99_991}"
            line[at["Prénom d'exercice"]] = GIVENS[person // 8 % 8]
            line[at["Code savoir-faire"]] = SPECIALITIES[person // 64 % 8]
            line[at["Numéro FINESS site"]] = place + key(place)
            line[at["Raison sociale site"]] = f"ETABLISSEMENT FICTIF {place}"
            file.write("|".join(line) + "\n")


def bare(url: str, path: Path) -> float:
    """Seconds of the same bytes into a table of text columns."""
    columns = ", ".join(f"c{place} text" for place in range(WIDTH))
    with psycopg.connect(url) as connection, path.open("rb") as file:
        connection.execute(f"CREATE UNLOGGED TABLE bare ({columns})")
        start = time.perf_counter()
        statement = "COPY bare FROM STDIN WITH (FORMAT csv, DELIMITER '|', QUOTE E'\\x01', HEADER)"
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            while block := file.read(1 << 20):
                copy.write(block)
        connection.commit()
        took = time.perf_counter() - start
        connection.execute("DROP TABLE bare")
    return took


def timed(url: str, path: Path) -> None:
    """Import one file in this process; seconds, peak memory and processor time, the server's too, on one line."""
    store = Store(url)
    with tempfile.TemporaryDirectory() as folder:
        blobs = open_store(f"file://{folder}/blobs")
        steps = Steps(store, DomainClock(), AuditTrail(b"x" * 32), Outbox(blobs), Representer(blobs))
        phases: dict[str, float] = {}
        start = last = time.perf_counter()

        def told(phase: str, *_: int) -> None:
            nonlocal last
            now = time.perf_counter()
            phases[phase] = phases.get(phase, 0.0) + now - last
            last = now

        import_file(steps, path, told=told)
        took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with psycopg.connect(url) as connection:
        backends = [row[0] for row in connection.execute("SELECT pid FROM pg_stat_activity WHERE query <> ''")]
    spent = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in [*backends, os.getpid()])
    print(took, peak, spent, *(f"{name}={seconds:.1f}" for name, seconds in phases.items()))
    store.close()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", type=int, default=2_000_000)
    asked.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    said = asked.parse_args()
    if said.child:
        timed(said.child[0], Path(said.child[1]))
        return
    with tempfile.TemporaryDirectory(prefix="rcp-banc-") as folder, EmbeddedServer(Path(folder) / "db") as url:
        store = Store(url)
        store.migrate()
        store.close()
        first = Path(folder) / "PS_LibreAcces_Personne_activite_202609020800.txt"
        write(first, said.rows)
        print(f"{said.rows} lines, {first.stat().st_size / 1e6:.0f} MB")
        limit = bare(url, first)
        print(f"{'':34}{'s':>8}{'lines/s':>10}{'x COPY':>8}{'cpu s':>8}{'peak MB':>9}")
        print(f"{'limit: bare COPY':34}{limit:8.1f}{said.rows / limit:10.0f}{1:8.1f}")
        second = first.with_name("PS_LibreAcces_Personne_activite_202609030800.txt")
        for label, path in (("imported into an empty directory", first), ("a day later, every line known", second)):
            if path is second:
                first.rename(second)
                with second.open("a", encoding="utf-8") as file:
                    file.write("\n")  # other bytes, the same lines
            command = [sys.executable, __file__, "--child", url, str(path)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            took, peak = float(answer[0]), float(answer[1])
            print(
                f"{label:34}{took:8.1f}{said.rows / took:10.0f}{took / limit:8.1f}{peak:9.0f}  {' '.join(answer[2:])}"
            )
        with psycopg.connect(url) as connection:
            tables = ("practitioner", "organisation", "practice_role")
            kept = [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables]
        print(", ".join(f"{count} {name}" for count, name in zip(kept, tables, strict=True)))
        print(f"target: 2 000 000 lines in 180 s ({2_000_000 / 180:.0f} a second), 300 MB")


if __name__ == "__main__":
    main()
