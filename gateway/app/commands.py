"""The commands of ``rcp-gateway``: read the settings, call what does the work, say what happened in French.

Everything heavy is imported by the command that needs it, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.app import logs
from gateway.app.registry import network_commands, partner_commands
from gateway.app.serve import COMPONENTS, hold_leash, supervise
from gateway.app.viewer_commands import viewer_commands
from gateway.errors import GatewayError
from gateway.settings import Settings, SettingsError, load

__all__ = ["cli"]

cli = typer.Typer(
    name="rcp-gateway",
    help="Passerelle d’interopérabilité des réunions de concertation pluridisciplinaire.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _settings() -> Settings:
    try:
        settings = load()
    except SettingsError as refusal:
        for fault in refusal.faults:
            typer.echo(fault, err=True)
        raise typer.Exit(1) from refusal
    logs.configure(settings.log_level, settings.log_format)
    return settings


@cli.command()
def serve(
    only: Annotated[
        str | None, typer.Option(help="Composants à lancer, séparés par des virgules : http, dicom, mllp, worker.")
    ] = None,
    leash: Annotated[bool, typer.Option("--leash", hidden=True)] = False,  # noqa: FBT002 - typer's flag
) -> None:
    """Run the wires and the background worker in one process tree."""
    settings = _settings()
    wanted = tuple(name.strip() for name in only.split(",")) if only else COMPONENTS
    for name in wanted:
        if name not in COMPONENTS:
            typer.echo(f"Composant inconnu : « {name} » (attendu : {', '.join(COMPONENTS)}).", err=True)
            raise typer.Exit(2)
    if leash:
        hold_leash()
    # Several processes of a component share its port; a child is one of them.
    many = {"http": settings.http_workers, "dicom": settings.dicom.workers}
    processes = [name for name in wanted for _ in range(many.get(name, 1))]
    if leash or len(processes) == 1:
        from gateway.app.components import run

        try:
            run(wanted[0], settings)
        except GatewayError as refusal:
            typer.echo(f"rcp-gateway {wanted[0]} : {refusal.text}", err=True)
            # A child that cannot ever start tells its supervisor not to try again.
            sys.exit(os.EX_CONFIG if leash and refusal.category == "fault" else 1)
        return
    from gateway.app.components import prepared, sharing

    try:
        with sharing(settings, wanted) as environment, prepared(settings):
            code = supervise(processes, environment)
    except GatewayError as refusal:
        typer.echo(f"rcp-gateway : {refusal.text}", err=True)
        sys.exit(1)
    raise typer.Exit(code)


@cli.command()
def migrate() -> None:
    """Bring the database to the schema of this program."""
    from gateway.app.components import migrated

    before, after = migrated(_settings())
    typer.echo(
        f"Base à jour (révision {after})." if before == after else f"Base migrée : {before or 'vide'} → {after}."
    )


@cli.command()
def check() -> None:
    """Read the configuration, then try each peer that it names."""
    from gateway.app.check import probe

    settings = _settings()
    failed = False
    for name, answer in probe(settings):
        typer.echo(f"{name:<12} {answer or 'répond'}")
        failed = failed or answer is not None
    raise typer.Exit(1 if failed else 0)


cli.add_typer(partner_commands(_settings), name="partner")
cli.add_typer(network_commands(_settings), name="network")
cli.add_typer(viewer_commands(_settings), name="viewer")


@cli.command()
def plan(
    at: Annotated[str | None, typer.Option(help="Instant ISO avec décalage ; maintenant par défaut.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Dire sans rien envoyer.")] = False,  # noqa: FBT002 - typer's flag
) -> None:
    """Run the notification planner once, or say who would get what, when and why."""
    from gateway.app import components

    instant = _instant(at)
    settings = _settings()
    if not dry_run:
        if instant is not None:
            typer.echo("--at ne sert qu’avec --dry-run : un envoi réel se fait à l’heure du domaine.", err=True)
            raise typer.Exit(2)
        run = components.planned(settings)
        typer.echo(f"{run.seen} dossiers examinés, {run.sent} messages mis en file, {run.failed} en échec.")
        raise typer.Exit(1 if run.failed else 0)
    for line in components.plan(settings, instant):
        typer.echo(line.text())


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("attendu un instant ISO, comme 2026-03-17T08:00+01:00") from error
    if instant.tzinfo is None:
        raise typer.BadParameter("l’instant doit porter son décalage, comme +01:00")
    return instant


@cli.command()
def replay(message_id: Annotated[uuid.UUID, typer.Argument(help="Identifiant du message.")]) -> None:
    """Deliver one outgoing message again, or process one incoming message again."""
    from gateway.app.components import replayed

    typer.echo(replayed(_settings(), message_id))


@cli.command("send-images")
def send_images(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    to: Annotated[
        str,
        typer.Argument(
            help="Titre AE d’une application enregistrée (--aet), ou base d’un serveur DICOMweb (--dicomweb)."
        ),
    ],
) -> None:
    """Send a study of a dossier to a registered application or server, once for the same images."""
    from gateway.app.components import images_sent

    typer.echo(images_sent(_settings(), study, to))


@cli.command("import-annuaire")
def import_annuaire(
    files: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="Extractions, en .txt ou en ZIP.")
    ],
    force_vanished: Annotated[  # noqa: FBT002 - typer's flag
        bool,
        typer.Option("--force-vanished", help="Accepter un fichier qui fait disparaître beaucoup d’entrées."),
    ] = False,
) -> None:
    """Load extractions of the national directory: practitioners, structures, MSSanté mailboxes."""
    from gateway.app.import_annuaire import imported

    for told in imported(_settings(), files, force=force_vanished):
        typer.echo(told)


@cli.command()
def reindex() -> None:
    """Extract the search columns again from the stored representations."""
    from gateway.app.components import reindexed

    def told(kind: str, done: int, total: int) -> None:
        line = f"{kind} : {done} sur {total}"
        # One line that changes on a terminal, one line a batch elsewhere.
        typer.echo(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, err=True, nl=not sys.stderr.isatty())
        if done == total and sys.stderr.isatty():
            typer.echo(err=True)

    typer.echo(f"{reindexed(_settings(), told)} représentations réindexées.")


audit = typer.Typer(help="La piste d’audit.", no_args_is_help=True)
cli.add_typer(audit, name="audit")


@audit.command("verify")
def audit_verify() -> None:
    """Find one altered, removed or reordered line of the trail."""
    from gateway.app.components import audit_faults

    faults = audit_faults(_settings())
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(1)
    typer.echo("Piste d’audit intacte.")


@audit.callback()
def _audit() -> None:
    """La piste d’audit."""
