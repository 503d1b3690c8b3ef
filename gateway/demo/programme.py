"""Runs the programme: prepares the stage, plays each day at its clock, then leaves the house open or goes home."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

from gateway.app.gateway import open_gateway
from gateway.demo.acts import BY_HAND_CLOCK, DAYS, Day, by_hand
from gateway.demo.fixtures import enter
from gateway.demo.narration import Narrator, NotSeen, french_instant
from gateway.demo.stage import own_directory
from gateway.demo.theatre import Theatre, open_theatre
from gateway.errors import Fault, GatewayError
from gateway.model.embedded import running
from gateway.settings import load

__all__ = ["run"]


class _Broken(Exception):
    """The story broke; it was told already."""


def run(*, once: bool) -> int:
    """Play; see `gateway.demo.play`.

    Raises
    ------
    Fault
        In ``prod``, or when the directory is not the demonstration's own.
    """
    settings = load()
    if settings.prod:
        raise Fault("demonstration-en-prod", "La démonstration est refusée en production.")
    began = time.monotonic()
    folder = own_directory(settings.data_dir)
    narrator = Narrator(folder)
    narrator.say()
    narrator.say("Passerelle RCP – démonstration : un dossier, de bout en bout, avec des personnes fictives.", indent=0)
    narrator.say(f"Ce que chaque fil a porté reste dans {folder}", indent=0)
    with contextlib.ExitStack() as stack:
        try:
            theatre = stack.enter_context(open_theatre(folder, narrator))
            # Acts come and go; the database stays, as it would on any server.
            stack.enter_context(running(theatre.stage.state / "database"))
            _prepare(theatre)
            for day in DAYS:
                _play(theatre, day)
        except _Broken:
            return 1
        except GatewayError as error:
            narrator.failed(0, "Préparation de la démonstration", error.text)
            return 1
        narrator.say()
        narrator.say(
            f"{len(narrator.steps)} étapes vues en {time.monotonic() - began:.0f} s, gardées dans "
            f"{(folder / 'story.json').relative_to(folder.parent)}.",
            indent=0,
        )
        return 0 if once else _stay(theatre)


def _prepare(theatre: Theatre) -> None:
    environment = {**theatre.stage.environment, "RCP_CLOCK": DAYS[0].clock.isoformat()}
    with open_gateway(load(environment)) as gateway:
        enter(gateway.steps, public_url=theatre.url, keys=theatre.partner_keys(), pacs={})


def _play(theatre: Theatre, day: Day) -> None:
    narrator = theatre.narrator
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(theatre.stage.serving(day.clock))
        except GatewayError as error:
            narrator.failed(day.acts[0].number, day.acts[0].title, error.text)
            raise _Broken from error
        for act in day.acts:
            narrator.open_act(act.number, act.title, day.clock)
            try:
                act.play(theatre)
            except NotSeen as missing:
                narrator.failed(act.number, missing.step, f"{missing.why}\n{theatre.stage.log_end()}".rstrip())
                raise _Broken from missing
            except Exception as error:
                narrator.failed(act.number, act.title, f"{type(error).__name__}: {error}\n{theatre.stage.log_end()}")
                raise _Broken from error


def _stay(theatre: Theatre) -> int:
    narrator = theatre.narrator
    with _interruption() as told, theatre.stage.serving(BY_HAND_CLOCK):
        narrator.say()
        try:
            by_hand(theatre)
        except NotSeen as missing:
            narrator.failed(0, missing.step, missing.why)
            return 1
        narrator.table("Adresses", _addresses(theatre))
        narrator.table("Comptes (Pro Santé Connect de démonstration, sans mot de passe)", _accounts(theatre))
        narrator.table("À essayer", _ideas(theatre))
        narrator.say()
        narrator.say(f"L’horloge du domaine est au {french_instant(BY_HAND_CLOCK)}. Ctrl-C pour arrêter.", indent=0)
        told.wait()
    return 0


@contextlib.contextmanager
def _interruption() -> Iterator[threading.Event]:
    told = threading.Event()
    former = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _addresses(theatre: Theatre) -> list[tuple[str, str]]:
    addresses = theatre.stage.addresses
    return [
        ("Portail", f"{theatre.url}/"),
        ("Boîtes MSSanté", theatre.boxes_url),
        ("FHIR R4", f"{theatre.url}/fhir/metadata"),
        ("DICOMweb", f"{theatre.url}/dicom-web"),
        ("DICOM", f"{addresses.ae_title}@{addresses.host}:{addresses.dicom}"),
        ("HL7 v2 (MLLP)", f"{addresses.host}:{addresses.mllp}"),
        ("IMAP", f"{theatre.mail.host}:{theatre.mail.port}, STARTTLS, mot de passe {theatre.mail.password}"),
    ]


def _accounts(theatre: Theatre) -> list[tuple[str, str]]:
    return [(f"{one.given} {one.family}", one.note) for one in theatre.psc.accounts if one.note]


def _ideas(theatre: Theatre) -> list[tuple[str, str]]:
    people = theatre.people
    return [
        ("médecin traitant", f"ouvrir la boîte {theatre.box(people.treating)}, suivre le lien du message"),
        ("coordonnatrice", f"{theatre.url}/seances : ouvrir la séance, noter les présents, rédiger, valider"),
        ("demandeur", f"lire la boîte {theatre.box(people.requester)}"),
    ]
