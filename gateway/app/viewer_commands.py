"""``rcp-gateway viewer …``: a viewer of others beside the portal's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gateway.errors import GatewayError
from gateway.settings import Settings

__all__ = ["viewer_commands"]


def viewer_commands(settings: Callable[[], Settings]) -> typer.Typer:
    """Make the group of commands."""
    group = typer.Typer(help="Visionneuse OHIF, en option.", no_args_is_help=True)

    @group.callback()
    def viewer() -> None:
        """Visionneuse OHIF, en option."""

    @group.command()
    def install(
        archive: Annotated[Path | None, typer.Option(help="Archive npm déjà là, sans réseau.", exists=True)] = None,
        registry: Annotated[str | None, typer.Option(help="Autre registre npm (miroir).")] = None,
    ) -> None:
        """Lay down OHIF (npm @ohif/app, a pinned version) in the data directory."""
        from gateway.app.ohif import REGISTRY
        from gateway.app.ohif import install as lay_down
        from gateway.portal.ohif_routes import BASE, VERSION

        chosen = settings()

        def told(size: int) -> None:
            if sys.stderr.isatty():
                typer.echo(f"\r{size >> 20} Mio", nl=False, err=True)

        try:
            folder = lay_down(chosen.data_dir, archive=archive, registry=registry or REGISTRY, progress=told)
        except GatewayError as refusal:
            typer.echo(f"rcp-gateway : {refusal.text}", err=True)
            raise typer.Exit(1) from refusal
        typer.echo(f"OHIF {VERSION} installé dans {folder} : {chosen.public_url}{BASE}/")

    return group
