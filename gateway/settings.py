"""One frozen settings tree, read once from the environment; the only module that reads it.

Promises: every fault is found at once and named (`SettingsError.faults`); a secret may come from ``…_FILE``; an unknown
``RCP_`` variable is refused with the nearest known name; ``prod`` refuses what only a trial may do.
It opens no socket and creates no file: whether a peer answers is ``rcp-gateway check``'s business.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from gateway.errors import InvalidContent
from gateway.transport import Address, Tls

__all__ = [
    "VARIABLES",
    "Dicom",
    "Fhir",
    "Limits",
    "Mail",
    "MailServer",
    "Mllp",
    "Organisation",
    "Psc",
    "Settings",
    "SettingsError",
    "load",
]


class SettingsError(InvalidContent):
    """The configuration cannot be used; ``faults`` holds one French sentence a fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("configuration", "Configuration refusée : " + " ; ".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class MailServer:
    """One mail server.

    ``security`` is ``starttls`` or ``tls``; plain text exists only for loopback in ``dev`` (``plain``).
    """

    host: str
    port: int
    security: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Mail:
    """The MSSanté application mailbox of this gateway.

    Attributes
    ----------
    pins
        Base64 SHA-256 of the public keys that the operator's servers may have.
    per_minute
        Mails a minute that the operator is given.
    max_bytes, max_bytes_by_domain
        Largest encoded mail, and for recipients of a domain.
    texts
        Folder of the operator's own texts.
    subject_identity
        Whether the subject of a report names the patient, inside MSSanté (DECISIONS 2).
    display_name
        Who the mails are from.
    pdf
        Level of PDF/A of the report's page.
    n1
        Whether the page also goes as a document of its own, beside the structured one.
    """

    address: str | None = None
    smtp: MailServer | None = None
    imap: MailServer | None = None
    tls: Tls = Tls()
    oauth_token_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: str | None = field(default=None, repr=False)
    pins: tuple[str, ...] = ()
    per_minute: int = 60
    max_bytes: int = 10_000_000
    max_bytes_by_domain: tuple[tuple[str, int], ...] = (("patient.mssante.fr", 25_000_000),)
    texts: Path | None = None
    subject_identity: bool = True
    display_name: str = "Passerelle RCP"
    pdf: Literal["a-1a", "a-2a", "a-3a"] = "a-1a"
    n1: bool = False


@dataclass(frozen=True)
class Psc:
    """Pro Santé Connect; signing in is closed when ``discovery_url`` is absent."""

    discovery_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    tls: Tls = Tls()


@dataclass(frozen=True)
class Dicom:
    """The DICOM port.

    Attributes
    ----------
    workers
        Processes that share the port.
    duplicates
        What is answered to other bytes under a known SOPInstanceUID, which are kept aside: ``refuse`` or ``warn``.
    tls_destinations
        AE titles of the applications that images are sent to over TLS.
    """

    bind: Address = Address("127.0.0.1", 11112)
    ae_title: str = "RCPGATEWAY"
    workers: int = 1
    duplicates: str = "refuse"
    tls: Tls = Tls()
    tls_destinations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mllp:
    """The HL7 v2 port.

    Attributes
    ----------
    matrix
        ``strict`` refuses a document whose flags follow no rule of the national matrix; ``lenient`` remarks it.
    """

    bind: Address = Address("127.0.0.1", 2575)
    tls: Tls = Tls()
    matrix: Literal["lenient", "strict"] = "lenient"


@dataclass(frozen=True)
class Fhir:
    """The FHIR wire.

    Attributes
    ----------
    auth
        ``required``, or ``off`` for trials.
    update_create
        Whether a PUT to an id that nobody used creates [FHIR R4 http#upsert].
    subscription_hosts
        The only hosts that subscribers are told at; every public one when empty.
    subscription_tls
        Whom these are trusted by, and what is shown to them.
    """

    auth: str = "required"
    update_create: bool = False
    subscription_hosts: tuple[str, ...] = ()
    subscription_tls: Tls = Tls()


@dataclass(frozen=True)
class Organisation:
    """Who the gateway is in documents, UIDs and mails."""

    finess: str | None = None
    oid_root: str | None = None
    mssante_nil: str | None = None


def _limit(default: int, least: int, most: int) -> Any:
    """Declare a limit with its default and what an operator may make of it."""
    return field(default=default, metadata={"bounds": (least, most)})


@dataclass(frozen=True)
class Limits:
    """The limits of what comes in by HTTP and of how much at once; exceeding one names it and its value.

    Each is set by ``RCP_LIMIT_`` and its name (`variable`). Those of one wire alone stand beside its code: DICOM's in
    `gateway.dicom.wire`, mail's in `gateway.mssante`.

    Attributes
    ----------
    http_body_bytes
        One request body after decompression.
    bundle_entries
        Entries of one batch or transaction.
    json_depth
        Levels of objects and lists, in JSON and in XML.
    json_nodes
        Values, objects and lists of one body; in XML and in a narrative elements, and attributes by themselves.
    patch_operations
        Operations of one patch.
    search_parameters, search_values
        Parameters of one search, and values that one of them may list; all together list as many and one each.
    search_chain
        References that one chained or ``_has`` parameter follows.
    search_sort
        Keys of one ``_sort``.
    bundle_seconds
        What all entries of one batch or transaction may take together.
    answer_bytes
        Resources of one answer together: a page of a search with its includes, of a history, a Bundle of responses.
    attachment_bytes, attachment_files
        One file that is laid beside a dossier in the portal, and how many one form holds.
    stow_bytes
        One STOW-RS request, all of its objects together.
    stow_metadata_bytes
        What describes the objects of one STOW-RS request whose bulk data come apart.
    stow_metadata_values
        Members, values and items that describe one of them; in XML elements and attributes.
    retrieval_bytes
        What DICOMweb's answers hold in memory together, in each process.
    search_page
        Resources of one page, whatever ``_count`` asks for.
    search_included
        Resources that ``_include`` and ``_revinclude`` add to one page.
    search_seconds
        What one search may cost the database.
    search_minutes
        How long the pages of one search can be followed.
    """

    http_body_bytes: int = _limit(16 << 20, 1 << 10, 1 << 30)
    bundle_entries: int = _limit(500, 1, 10_000)
    bundle_seconds: int = _limit(60, 1, 3600)
    answer_bytes: int = _limit(32 << 20, 1 << 10, 1 << 30)
    json_depth: int = _limit(64, 16, 200)
    json_nodes: int = _limit(250_000, 100, 10_000_000)
    patch_operations: int = _limit(200, 1, 10_000)
    search_parameters: int = _limit(50, 1, 1000)
    search_values: int = _limit(200, 1, 10_000)
    search_chain: int = _limit(3, 1, 8)
    search_sort: int = _limit(5, 1, 20)
    search_page: int = _limit(500, 1, 10_000)
    search_included: int = _limit(1000, 1, 100_000)
    search_seconds: int = _limit(10, 1, 600)
    search_minutes: int = _limit(15, 1, 24 * 60)
    dicom_associations: int = _limit(50, 1, 10_000)
    attachment_bytes: int = _limit(20 << 20, 1 << 10, 1 << 30)
    attachment_files: int = _limit(10, 1, 100)
    stow_bytes: int = _limit(16 << 30, 1 << 10, 1 << 40)
    stow_metadata_bytes: int = _limit(16 << 20, 1 << 10, 1 << 30)
    stow_metadata_values: int = _limit(1_000_000, 100, 100_000_000)
    retrieval_bytes: int = _limit(512 << 20, 4 << 20, 1 << 40)
    mllp_connections: int = _limit(50, 1, 10_000)
    mllp_message_bytes: int = _limit(20 << 20, 1 << 10, 256 << 20)
    requests_per_minute: int = _limit(6000, 1, 10_000_000)

    @staticmethod
    def variable(name: str) -> str:
        """Name the environment variable of a limit."""
        return "RCP_LIMIT_" + name.upper()

    def told(self, name: str) -> str:
        """Say a limit in a refusal: its value and the variable that sets it."""
        return f"limite {getattr(self, name)} ({self.variable(name)})"


@dataclass(frozen=True)
class WebCredential:
    """What is shown to one DICOMweb server.

    Attributes
    ----------
    url
        Its base, without a slash at the end.
    kind
        ``bearer`` (a token), ``basic`` (name and password) or ``oauth2`` (token address, client, secret).
    """

    url: str
    kind: str
    words: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """The whole configuration of one process.

    Attributes
    ----------
    clock
        Where the domain's clock starts (DECISIONS 12); `None` means real time. Never used for tokens, TLS, cookies,
        ``recorded``, ``lastUpdated`` or jobs.
    secret_key
        Given secret, or `None`: made at first start in the data directory.
    """

    profile: str = "dev"
    data_dir: Path = Path("data")
    database_url: str | None = field(default=None, repr=False)
    blob_url: str | None = None
    http_bind: Address = Address("127.0.0.1", 8080)
    http_workers: int = 1
    public_url: str = "http://127.0.0.1:8080"
    secret_key: str | None = field(default=None, repr=False)
    organisation: Organisation = Organisation()
    trusted_proxies: tuple[str, ...] = ()
    fhir: Fhir = Fhir()
    dicom: Dicom = Dicom()
    dicomweb_origins: tuple[str, ...] = ()
    dicomweb_credentials: tuple[WebCredential, ...] = field(default=(), repr=False)
    mllp: Mllp = Mllp()
    mail: Mail = Mail()
    psc: Psc = Psc()
    annuaire_url: str | None = None
    annuaire_key: str | None = field(default=None, repr=False)
    annuaire_authorities: Path | None = None
    clock: datetime | None = None
    log_level: str = "info"
    log_format: str | None = None
    limits: Limits = Limits()

    @property
    def prod(self) -> bool:
        """Whether the strict profile is on."""
        return self.profile == "prod"


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("attendu hôte:port")
    return Address(host.strip("[]"), int(port))


def _choice(*allowed: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError("attendu " + " ou ".join(allowed))
        return text

    return check


def _url(*schemes: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if urlsplit(text).scheme not in schemes:
            raise ValueError("attendu " + " ou ".join(f"{scheme}://…" for scheme in schemes))
        return text.rstrip("/")

    return check


_MAIL_SCHEMES: dict[str, tuple[str, int]] = {
    "smtp+starttls": ("starttls", 587),
    "smtps": ("tls", 465),
    "smtp": ("plain", 25),
    "imap+starttls": ("starttls", 143),
    "imaps": ("tls", 993),
    "imap": ("plain", 143),
}


def _mail_server(text: str) -> MailServer:
    parts = urlsplit(text)
    if parts.scheme not in _MAIL_SCHEMES or not parts.hostname:
        raise ValueError("attendu smtp+starttls://, smtps://, imaps:// ou imap+starttls://")
    security, port = _MAIL_SCHEMES[parts.scheme]
    return MailServer(
        parts.hostname,
        parts.port or port,
        security,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


def _instant(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError("attendu un instant ISO avec son décalage")
    return value.astimezone(UTC)


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError("fichier introuvable")
    return path


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise ValueError("dossier introuvable")
    return path


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.replace(",", " ").split() if name)


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(name.lower() for name in _names(text))
    if not hosts or any(not re.fullmatch(r"(?:\*\.)?[a-z0-9-]+(?:\.[a-z0-9-]+)+", host) for host in hosts):
        raise ValueError("attendu des noms comme « rcp.chu-x.example » ou « *.chu-x.example »")
    return hosts


def _ae_title(text: str) -> str:
    if not 1 <= len(text.strip()) <= 16 or not text.isascii() or "\\" in text:
        raise ValueError("attendu 1 à 16 caractères ASCII sans barre oblique inverse")
    return text.strip()


def _ae_titles(text: str) -> tuple[str, ...]:
    return tuple(_ae_title(title) for title in text.split(",") if title.strip())


def _origins(text: str) -> tuple[str, ...]:
    origins = _names(text)
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError("attendu des origines comme « https://visionneuse.example », sans chemin")
    return origins


#: How a line of RCP_DICOMWEB_CREDENTIALS goes on after the server's address, and how many words that is.
_SHOWN: Final = {"bearer": 1, "basic": 2, "oauth2": 3}


def _web_credentials(text: str) -> tuple[WebCredential, ...]:
    """Read a line a server; what is wrong is told by its number alone: the line is a secret."""
    found: dict[str, WebCredential] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        url, kind, *rest = (*line.split(None, 2), "", "")[:3]
        words = tuple(rest[0].split(None, _SHOWN.get(kind, 1) - 1))
        addresses = [url, *words[:1]] if kind == "oauth2" else [url]
        known = all(_is_web(address) for address in addresses) and url.rstrip("/") not in found
        said = len(words) == _SHOWN.get(kind) and (kind != "bearer" or " " not in words[0])
        if not known or not said or not line.isascii() or not line.strip().isprintable():
            raise ValueError(
                f"ligne {number} : attendu une fois par serveur « URL bearer JETON », « URL basic NOM SECRET » ou "
                "« URL oauth2 URL-DU-JETON CLIENT SECRET »"
            )
        found[url.rstrip("/")] = WebCredential(url.rstrip("/"), kind, tuple(word.strip() for word in words))
    return tuple(found.values())


def _is_web(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None


def _text(text: str) -> str:
    return text


def _switch(text: str) -> bool:
    return _choice("on", "off")(text) == "on"


def _bounded(least: int, most: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        # No more digits than the largest bound has: int() of a long text is slow, and other scripts have digits too.
        if not (text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most):
            raise ValueError(f"attendu un entier de {least} à {most}")
        return int(text)

    return check


def _pins(text: str) -> tuple[str, ...]:
    names = _names(text)
    if not names or any(not re.fullmatch(r"[A-Za-z0-9+/]{43}=", name) for name in names):
        raise ValueError("attendu des empreintes SHA-256 de clés publiques, en base64 (44 caractères)")
    return names


_mail_bytes = _bounded(100_000, 100_000_000)


def _sizes(text: str) -> tuple[tuple[str, int], ...]:
    sizes = []
    for each in _names(text):
        domain, _, size = each.partition("=")
        if not domain:
            raise ValueError("attendu domaine=octets")
        sizes.append((domain.lower(), _mail_bytes(size)))
    return tuple(sizes)


@dataclass(frozen=True)
class _Variable:
    path: str
    read: Callable[[str], Any]
    secret: bool = False


def _tls(prefix: str, path: str, *, lists: bool = False) -> dict[str, _Variable]:
    files = {"CERT": "certificate", "KEY": "key", "CA": "authorities"} | ({"CRL": "revoked"} if lists else {})
    return {f"{prefix}_TLS_{name}": _Variable(f"{path}.{leaf}", _file) for name, leaf in files.items()}


#: Every variable, where it goes in the tree and how it is read.
VARIABLES: dict[str, _Variable] = {
    "RCP_PROFILE": _Variable("profile", _choice("dev", "prod")),
    "RCP_DATA_DIR": _Variable("data_dir", Path),
    "RCP_DATABASE_URL": _Variable("database_url", _url("postgresql", "postgres", "postgresql+psycopg"), secret=True),
    "RCP_BLOB_URL": _Variable("blob_url", _url("file", "s3", "gs", "az")),
    "RCP_HTTP_BIND": _Variable("http_bind", _address),
    "RCP_HTTP_WORKERS": _Variable("http_workers", _bounded(1, 32)),
    "RCP_PUBLIC_URL": _Variable("public_url", _url("http", "https")),
    "RCP_DICOM_BIND": _Variable("dicom.bind", _address),
    "RCP_DICOM_AE_TITLE": _Variable("dicom.ae_title", _ae_title),
    "RCP_DICOM_WORKERS": _Variable("dicom.workers", _bounded(1, 32)),
    "RCP_DICOM_DUPLICATES": _Variable("dicom.duplicates", _choice("refuse", "warn")),
    **_tls("RCP_DICOM", "dicom.tls", lists=True),
    "RCP_DICOM_TLS_DESTINATIONS": _Variable("dicom.tls_destinations", _ae_titles),
    "RCP_DICOMWEB_ORIGINS": _Variable("dicomweb_origins", _origins),
    "RCP_DICOMWEB_CREDENTIALS": _Variable("dicomweb_credentials", _web_credentials, secret=True),
    "RCP_MLLP_BIND": _Variable("mllp.bind", _address),
    "RCP_MLLP_MATRIX": _Variable("mllp.matrix", _choice("lenient", "strict")),
    **_tls("RCP_MLLP", "mllp.tls", lists=True),
    "RCP_SECRET_KEY": _Variable("secret_key", _text, secret=True),
    "RCP_ORGANISATION_FINESS": _Variable("organisation.finess", _text),
    "RCP_OID_ROOT": _Variable("organisation.oid_root", _text),
    "RCP_MSSANTE_NIL": _Variable("organisation.mssante_nil", _text),
    "RCP_TRUSTED_PROXY": _Variable("trusted_proxies", _names),
    "RCP_FHIR_AUTH": _Variable("fhir.auth", _choice("required", "off")),
    "RCP_FHIR_UPDATE_CREATE": _Variable("fhir.update_create", _switch),
    "RCP_FHIR_SUBSCRIPTION_HOSTS": _Variable("fhir.subscription_hosts", _hosts),
    **_tls("RCP_FHIR_SUBSCRIPTION", "fhir.subscription_tls"),
    "RCP_MSSANTE_SMTP_URL": _Variable("mail.smtp", _mail_server, secret=True),
    "RCP_MSSANTE_IMAP_URL": _Variable("mail.imap", _mail_server, secret=True),
    "RCP_MSSANTE_ADDRESS": _Variable("mail.address", _text),
    **_tls("RCP_MSSANTE", "mail.tls", lists=True),
    "RCP_MSSANTE_TLS_PIN": _Variable("mail.pins", _pins),
    "RCP_MSSANTE_PER_MINUTE": _Variable("mail.per_minute", _bounded(1, 100_000)),
    "RCP_MSSANTE_MAX_BYTES": _Variable("mail.max_bytes", _mail_bytes),
    "RCP_MSSANTE_MAX_BYTES_BY_DOMAIN": _Variable("mail.max_bytes_by_domain", _sizes),
    "RCP_MSSANTE_SUBJECT_IDENTITY": _Variable("mail.subject_identity", _switch),
    "RCP_MSSANTE_DISPLAY_NAME": _Variable("mail.display_name", _text),
    "RCP_MSSANTE_PDF": _Variable("mail.pdf", _choice("a-1a", "a-2a", "a-3a")),
    "RCP_MSSANTE_N1": _Variable("mail.n1", _switch),
    "RCP_MESSAGES_DIR": _Variable("mail.texts", _folder),
    "RCP_MSSANTE_OAUTH_TOKEN_URL": _Variable("mail.oauth_token_url", _url("https")),
    "RCP_MSSANTE_OAUTH_CLIENT_ID": _Variable("mail.oauth_client_id", _text),
    "RCP_MSSANTE_OAUTH_CLIENT_SECRET": _Variable("mail.oauth_client_secret", _text, secret=True),
    "RCP_PSC_DISCOVERY_URL": _Variable("psc.discovery_url", _url("http", "https")),
    "RCP_PSC_CLIENT_ID": _Variable("psc.client_id", _text),
    "RCP_PSC_CLIENT_SECRET": _Variable("psc.client_secret", _text, secret=True),
    **_tls("RCP_PSC", "psc.tls"),
    "RCP_ANNUAIRE_URL": _Variable("annuaire_url", _url("http", "https")),
    "RCP_ANNUAIRE_KEY": _Variable("annuaire_key", _text, secret=True),
    "RCP_ANNUAIRE_TLS_CA": _Variable("annuaire_authorities", _file),
    "RCP_CLOCK": _Variable("clock", _instant),
    "RCP_LOG_LEVEL": _Variable("log_level", _choice("debug", "info", "warning", "error")),
    "RCP_LOG_FORMAT": _Variable("log_format", _choice("console", "json")),
    **{
        Limits.variable(limit.name): _Variable(f"limits.{limit.name}", _bounded(*limit.metadata["bounds"]))
        for limit in fields(Limits)
    },
}

_BRANCHES: dict[str, type[Any]] = {
    "dicom": Dicom,
    "dicom.tls": Tls,
    "mllp": Mllp,
    "mllp.tls": Tls,
    "organisation": Organisation,
    "fhir": Fhir,
    "fhir.subscription_tls": Tls,
    "mail": Mail,
    "mail.tls": Tls,
    "psc": Psc,
    "psc.tls": Tls,
    "limits": Limits,
}


def _given(environment: Mapping[str, str], faults: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, text in environment.items():
        if not name.startswith("RCP_") or not text:
            continue
        base = name.removesuffix("_FILE")
        if name in VARIABLES:
            values[name] = text
        elif base in VARIABLES and VARIABLES[base].secret:
            try:
                values[base] = Path(text).read_text(encoding="utf-8").strip()
            except OSError:
                faults.append(f"{name} : fichier illisible")
        else:
            near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.0)
            faults.append(f"{name} : variable inconnue (la plus proche : {near[0]})")
    return values


def _default_data_dir() -> Path:
    return Path("/var/lib/rcp-gateway") if os.geteuid() == 0 else Path("data")


def _prod_faults(settings: Settings) -> list[str]:
    servers = [server for server in (settings.mail.smtp, settings.mail.imap) if server]
    loopback_mail = [server for server in servers if server.security == "plain"]
    refused = [
        (
            bool(servers) and settings.mail.tls.authorities is None,
            "RCP_MSSANTE_TLS_CA : exigée en prod avec la messagerie (IGC-Santé n’est dans aucun magasin public)",
        ),
        (
            settings.mail.smtp is not None and not settings.organisation.mssante_nil,
            "RCP_MSSANTE_NIL : exigé en prod avec la messagerie",
        ),
        (urlsplit(settings.public_url).scheme != "https", "RCP_PUBLIC_URL : https exigé en prod"),
        (settings.fhir.auth == "off", "RCP_FHIR_AUTH : « off » est refusé en prod"),
        (settings.clock is not None, "RCP_CLOCK : horloge décalée refusée en prod"),
        (bool(loopback_mail), "RCP_MSSANTE_… : messagerie sans TLS refusée en prod"),
        (urlsplit(settings.annuaire_url or "https:").scheme != "https", "RCP_ANNUAIRE_URL : https exigé en prod"),
        (
            urlsplit(settings.psc.discovery_url or "https:").scheme != "https",
            "RCP_PSC_DISCOVERY_URL : https exigé en prod",
        ),
        (
            settings.secret_key is not None and len(settings.secret_key) < 32,
            "RCP_SECRET_KEY : au moins 32 caractères en prod",
        ),
    ]
    return [sentence for wrong, sentence in refused if wrong]


def _coherence_faults(settings: Settings) -> list[str]:
    plain_abroad = [
        server.host
        for server in (settings.mail.smtp, settings.mail.imap)
        if server and server.security == "plain" and server.host not in {"127.0.0.1", "::1", "localhost"}
    ]
    faults = [f"RCP_MSSANTE_… : messagerie sans TLS refusée hors de cette machine ({host})" for host in plain_abroad]
    for name, tls in (
        ("DICOM", settings.dicom.tls),
        ("MLLP", settings.mllp.tls),
        ("MSSANTE", settings.mail.tls),
        ("PSC", settings.psc.tls),
        ("FHIR_SUBSCRIPTION", settings.fhir.subscription_tls),
    ):
        if (tls.certificate is None) != (tls.key is None):
            faults.append(f"RCP_{name}_TLS_CERT et RCP_{name}_TLS_KEY vont ensemble")
        if tls.revoked and not tls.authorities:
            faults.append(f"RCP_{name}_TLS_CA : exigée avec RCP_{name}_TLS_CRL")
    if settings.mail.smtp and not settings.mail.address:
        faults.append("RCP_MSSANTE_ADDRESS : exigée avec RCP_MSSANTE_SMTP_URL")
    if settings.psc.discovery_url and not settings.psc.client_id:
        faults.append("RCP_PSC_CLIENT_ID : exigé avec RCP_PSC_DISCOVERY_URL")
    return faults


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Parameters
    ----------
    environment
        Variables; the process's own when absent.

    Raises
    ------
    SettingsError
        With every fault, not only the first.
    """
    faults: list[str] = []
    given = _given(os.environ if environment is None else environment, faults)
    leaves: dict[str, dict[str, Any]] = {}
    for name, text in given.items():
        variable = VARIABLES[name]
        try:
            value = variable.read(text)
        except ValueError as error:
            faults.append(f"{name} : {error}")
            continue
        branch, _, leaf = variable.path.rpartition(".")
        leaves.setdefault(branch, {})[leaf] = value
    for branch in sorted(_BRANCHES, key=lambda name: -name.count(".")):
        parent, _, leaf = branch.rpartition(".")
        leaves.setdefault(parent, {})[leaf] = _BRANCHES[branch](**leaves.get(branch, {}))
    top = leaves.get("", {})
    top.setdefault("data_dir", _default_data_dir())
    top["data_dir"] = top["data_dir"].absolute()
    settings = Settings(**top)
    faults += _coherence_faults(settings)
    if settings.prod:
        faults += _prod_faults(settings)
    if faults:
        raise SettingsError(faults)
    return settings
