"""The command line: ``rcp-gateway``.

Every command exits 0 on success, 1 on a refusal that it explains in one sentence, 2 on wrong usage.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway.app.commands import cli
from gateway.errors import GatewayError

__all__ = ["main"]


@cli.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="S’arrêter après l’histoire.")] = False,  # noqa: FBT002 - typer's flag
) -> None:
    """Play one whole dossier over the real wires, with fictitious people."""
    from gateway.demo import play

    raise typer.Exit(play(once=once))


def main() -> None:
    """Run one command and turn a refusal into one sentence and an exit status."""
    try:
        cli(standalone_mode=True)
    except GatewayError as refusal:
        typer.echo(f"rcp-gateway : {refusal.text}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
