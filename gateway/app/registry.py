"""The commands of the registry: ``rcp-gateway partner …`` and ``rcp-gateway network …``.

Promises: a file of keys is read under a limit and must be a JWKS; what is wrong is said in one sentence. The verbs are
`gateway.rcp.registry`; no private key is asked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.app.gateway import open_gateway
from gateway.errors import InvalidContent
from gateway.rcp import registry
from gateway.rcp.access import SYSTEM
from gateway.rcp.peer_proofs import MARK
from gateway.settings import Settings

__all__ = ["network_commands", "partner_commands"]

_MAX_JWKS_BYTES = 64 * 1024


def _jwks(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    content = path.read_bytes()
    if len(content) > _MAX_JWKS_BYTES:
        raise InvalidContent("jwks", "Le fichier de clés dépasse 64 Kio.")
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidContent("jwks", "Le fichier de clés n’est pas un JWKS lisible.") from error


def _ae_title(text: str) -> registry.AeTitle:
    application, *certificates = re.split(f",{MARK}", text, flags=re.IGNORECASE)
    title, _, place = application.partition("@")
    if not place:
        return registry.AeTitle(title, certificates=tuple(certificates))
    host, _, port = place.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise InvalidContent("aet", "Attendu : AET@hôte:port, AET@[IPv6]:port, suivi au besoin de ,sha256:EMPREINTE.")
    return registry.AeTitle(title, host, int(port), tuple(certificates))


def partner_commands(settings_of: Any) -> typer.Typer:
    """Build ``partner add | list | revoke``."""
    commands = typer.Typer(help="Les organisations qui parlent à la passerelle.", no_args_is_help=True)

    @commands.command()
    def add(
        name: Annotated[str, typer.Argument(help="Nom de l’organisation.")],
        finess: Annotated[str | None, typer.Option(help="Numéro FINESS.")] = None,
        network: Annotated[str | None, typer.Option(help="Code du réseau.")] = None,
        patient_domain: Annotated[list[str] | None, typer.Option(help="Domaine d’IPP : OID ou URL.")] = None,
        fhir_scopes: Annotated[str | None, typer.Option(help="Droits SMART, séparés par des espaces.")] = None,
        jwks: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Clés publiques.")] = None,
        jwks_uri: Annotated[str | None, typer.Option(help="Adresse des clés publiques.")] = None,
        aet: Annotated[
            list[str] | None, typer.Option(help="Application DICOM : AET@hôte:port[,sha256:EMPREINTE].")
        ] = None,
        mllp: Annotated[list[str] | None, typer.Option(help="Pair MLLP : hôte, sha256:EMPREINTE[@hôte].")] = None,
        dicomweb: Annotated[
            list[str] | None, typer.Option(help="Base d’un serveur DICOMweb, où des images sont envoyées.")
        ] = None,
        peer: Annotated[list[str] | None, typer.Option(help="Base FHIR d’une passerelle paire.")] = None,
    ) -> None:
        """Register an organisation: what it may write, and its credentials on each wire."""
        facts = registry.PartnerFacts(
            name=name,
            finess=finess,
            network=network,
            patient_domains=tuple(patient_domain or ()),
            fhir_scopes=tuple((fhir_scopes or "").split()),
            jwks=_jwks(jwks),
            jwks_uri=jwks_uri,
            ae_titles=tuple(_ae_title(text) for text in aet or ()),
            mllp_peers=tuple(mllp or ()),
            dicomweb=tuple(dicomweb or ()),
            peers=tuple(peer or ()),
        )
        with open_gateway(settings_of()) as gateway:
            partner_id = gateway.steps.run(SYSTEM, lambda step: registry.add_partner(step, facts).id)
            with gateway.store.session() as session:
                client_id = registry.client_of(session, partner_id)
        typer.echo(f"{name} : enregistré" + (f", client FHIR « {client_id} »" if client_id else "") + ".")

    @commands.command("list")
    def list_() -> None:
        """List the live partners."""
        settings: Settings = settings_of()
        with open_gateway(settings) as gateway, gateway.store.session() as session:
            for partner in registry.partners(session):
                credentials = ", ".join(
                    f"{credential.kind}:{credential.value}"
                    for credential in partner.credentials
                    if credential.revoked_at is None
                )
                typer.echo(f"{partner.name}\t{partner.finess or '–'}\t{credentials or '–'}")

    @commands.command()
    def revoke(name: Annotated[str, typer.Argument(help="Nom de l’organisation.")]) -> None:
        """Stop trusting an organisation, at once."""
        with open_gateway(settings_of()) as gateway:
            gateway.steps.run(SYSTEM, lambda step: registry.revoke_partner(step, name).id)
        typer.echo(f"{name} : révoqué.")

    return commands


def network_commands(settings_of: Any) -> typer.Typer:
    """Build ``network add | list``."""
    commands = typer.Typer(help="Les réseaux (DCC, filières) servis par cette passerelle.", no_args_is_help=True)

    @commands.command()
    def add(
        code: Annotated[str, typer.Argument(help="Code court du réseau.")],
        name: Annotated[str, typer.Option(help="Nom du réseau.")],
        base_url: Annotated[str, typer.Option(help="Adresse du portail de ce réseau.")],
        contact: Annotated[str, typer.Option(help="Adresse de contact, la seule affichée.")],
        zone: Annotated[str, typer.Option(help="Fuseau IANA.")] = "Europe/Paris",
        holidays: Annotated[str, typer.Option(help="Jeu de jours fériés.")] = "metropole",
    ) -> None:
        """Register a regional DCC or filière."""
        facts = registry.NetworkFacts(
            code=code, name=name, base_url=base_url, contact=contact, zone=zone, holidays=holidays
        )
        with open_gateway(settings_of()) as gateway:
            gateway.steps.run(SYSTEM, lambda step: registry.add_network(step, facts).id)
        typer.echo(f"{code} : enregistré.")

    @commands.command("list")
    def list_() -> None:
        """List the networks."""
        with open_gateway(settings_of()) as gateway, gateway.store.session() as session:
            for network in registry.networks(session):
                typer.echo(f"{network.code}\t{network.name}\t{network.base_url}\t{network.zone}\t{network.holidays}")

    return commands
