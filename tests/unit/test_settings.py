"""The settings: every fault at once, secrets from files, `prod` strict, and the documentation complete."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.errors import Fault
from gateway.settings import VARIABLES, Limits, SettingsError, load
from gateway.transport import Tls
from tests.e2e.mail_servers import Authority

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def faults(**environment: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load(environment)
    return refused.value.faults


def test_defaults_of_the_contract(tmp_path: Path) -> None:
    settings = load({"RCP_DATA_DIR": str(tmp_path)})
    assert str(settings.http_bind) == "127.0.0.1:8080"
    assert str(settings.dicom.bind) == "127.0.0.1:11112"
    assert settings.dicom.ae_title == "RCPGATEWAY"
    assert settings.fhir.auth == "required"
    assert settings.profile == "dev"


def test_an_unknown_variable_is_refused_with_the_nearest_name() -> None:
    assert faults(RCP_CLOK="x") == ["RCP_CLOK : variable inconnue (la plus proche : RCP_CLOCK)"]


def test_every_fault_is_told_at_once() -> None:
    told = faults(RCP_HTTP_BIND="nowhere", RCP_CLOCK="2026-01-01T08:00", RCP_FHIR_AUTH="perhaps")
    assert [fault.split(" ")[0] for fault in told] == ["RCP_HTTP_BIND", "RCP_CLOCK", "RCP_FHIR_AUTH"]


def test_a_secret_may_stand_in_a_file_and_never_in_a_repr(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret-of-the-test\n")
    settings = load({"RCP_SECRET_KEY_FILE": str(file)})
    assert settings.secret_key == "s3cret-of-the-test"
    assert "s3cret" not in repr(settings)


def test_what_is_shown_to_dicomweb_servers_is_read_line_by_line_and_never_told(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(
        "# les PACS\n\nhttps://a.example/dicom-web/ bearer s3cret-1\n"
        "https://b.example/dw basic depot s3cret of words\n"
        "https://c.example oauth2 https://idp.example/token rcp s3cret-3\n"
    )
    settings = load({"RCP_DICOMWEB_CREDENTIALS_FILE": str(file)})
    assert [(one.url, one.kind, one.words) for one in settings.dicomweb_credentials] == [
        ("https://a.example/dicom-web", "bearer", ("s3cret-1",)),
        ("https://b.example/dw", "basic", ("depot", "s3cret of words")),
        ("https://c.example", "oauth2", ("https://idp.example/token", "rcp", "s3cret-3")),
    ]
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in repr(settings.dicomweb_credentials)


@pytest.mark.parametrize(
    "line",
    [
        "https://a.example bearer",
        "https://a.example bearer s3cret and more",
        "https://a.example basic s3cret",
        "https://a.example oauth2 ftp://idp.example/token rcp s3cret",
        "https://a.example oauth2 https://idp.example/token s3cret",
        "https://user:s3cret@a.example bearer s3cret",
        "ftp://a.example bearer s3cret",
        "https://a.example digest s3cret",
        "https://a.example bearer s3cret\nhttps://a.example/ bearer s3cret",
        "https://a.example bearer s3cr\u00e9t",
        "s3cret",
    ],
)
def test_a_line_that_shows_nothing_is_told_by_its_number_alone(line: str) -> None:
    [fault] = faults(RCP_DICOMWEB_CREDENTIALS=line)
    assert fault.startswith("RCP_DICOMWEB_CREDENTIALS : ligne ")
    assert "s3cr" not in fault


def test_a_mail_password_is_decoded_and_hidden() -> None:
    settings = load(
        {"RCP_MSSANTE_SMTP_URL": "smtp+starttls://rcp:p%40ss@mail.example:587", "RCP_MSSANTE_ADDRESS": "rcp@x.example"}
    )
    assert settings.mail.smtp is not None
    assert settings.mail.smtp.password == "p@ss"
    assert settings.mail.smtp.security == "starttls"
    assert "p@ss" not in repr(settings)


def test_prod_refuses_what_only_a_trial_may_do() -> None:
    told = faults(
        RCP_PROFILE="prod",
        RCP_PUBLIC_URL="http://rcp.example",
        RCP_FHIR_AUTH="off",
        RCP_CLOCK="2026-01-01T08:00:00+01:00",
        RCP_SECRET_KEY="short",
        RCP_PSC_DISCOVERY_URL="http://psc.example/x",
        RCP_PSC_CLIENT_ID="rcp",
    )
    assert {fault.split(" ")[0] for fault in told} == {
        "RCP_PUBLIC_URL",
        "RCP_FHIR_AUTH",
        "RCP_CLOCK",
        "RCP_SECRET_KEY",
        "RCP_PSC_DISCOVERY_URL",
    }


def test_mail_without_tls_never_leaves_this_machine() -> None:
    told = faults(RCP_MSSANTE_SMTP_URL="smtp://mail.example:25", RCP_MSSANTE_ADDRESS="rcp@x.example")
    assert told == ["RCP_MSSANTE_… : messagerie sans TLS refusée hors de cette machine (mail.example)"]


def test_mail_in_prod_names_its_authority_and_its_product() -> None:
    told = faults(
        RCP_PROFILE="prod",
        RCP_PUBLIC_URL="https://rcp.example",
        RCP_MSSANTE_SMTP_URL="smtps://mail.example",
        RCP_MSSANTE_ADDRESS="rcp@x.example",
    )
    assert [fault.split(" ")[0] for fault in told] == ["RCP_MSSANTE_TLS_CA", "RCP_MSSANTE_NIL"]


def test_what_bounds_and_pins_the_mail_is_read_whole(tmp_path: Path) -> None:
    assert dict(load({}).mail.max_bytes_by_domain) == {"patient.mssante.fr": 25_000_000}
    pin = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    mail = load(
        {"RCP_MSSANTE_MAX_BYTES_BY_DOMAIN": "A.example=200000, b.example=300000", "RCP_MSSANTE_TLS_PIN": f"{pin} {pin}"}
    ).mail
    assert (mail.max_bytes_by_domain, mail.pins) == ((("a.example", 200_000), ("b.example", 300_000)), (pin, pin))
    lists = tmp_path / "liste.crl"
    lists.touch()
    for environment in (
        {"RCP_MSSANTE_MAX_BYTES_BY_DOMAIN": "a.example"},
        {"RCP_MSSANTE_MAX_BYTES_BY_DOMAIN": "=200000"},
        {"RCP_MSSANTE_MAX_BYTES": "10"},
        {"RCP_MSSANTE_TLS_PIN": "sha256:abc"},
        {"RCP_MSSANTE_PER_MINUTE": "0"},
        {"RCP_MSSANTE_TLS_CRL": str(lists)},
    ):
        assert len(faults(**environment)) == 1


def test_the_clock_is_an_instant() -> None:
    assert load({"RCP_CLOCK": "2026-03-17T08:00:00+01:00"}).clock == datetime(2026, 3, 17, 7, tzinfo=UTC)


def test_every_variable_is_documented() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in VARIABLES if f"`{name}`" not in page] == []


def test_a_limit_is_a_whole_number_within_its_bounds() -> None:
    assert load({"RCP_LIMIT_BUNDLE_ENTRIES": "7"}).limits == Limits(bundle_entries=7)
    for text in ("0", "-1", "10001", "1e3", " 7", "٣", "7" * 5000, "sept"):
        assert faults(RCP_LIMIT_BUNDLE_ENTRIES=text) == ["RCP_LIMIT_BUNDLE_ENTRIES : attendu un entier de 1 à 10000"]
    assert faults(RCP_LIMIT_BUNDLE_ENTRY="7") == [
        "RCP_LIMIT_BUNDLE_ENTRY : variable inconnue (la plus proche : RCP_LIMIT_BUNDLE_ENTRIES)"
    ]


def test_a_refusal_says_the_limit_and_what_sets_it() -> None:
    assert Limits(json_depth=20).told("json_depth") == "limite 20 (RCP_LIMIT_JSON_DEPTH)"


def test_the_page_says_each_limit_as_it_is() -> None:
    rows = re.findall(r"^\| `(RCP_LIMIT_\w+)` \| (\d+) \| (\d+) to (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [(name, *map(int, numbers)) for name, *numbers in rows] == [
        (Limits.variable(limit.name), limit.default, *limit.metadata["bounds"]) for limit in fields(Limits)
    ]
    for limit in fields(Limits):
        least, most = limit.metadata["bounds"]
        assert least <= limit.default <= most


def test_an_id_that_nobody_used_is_created_only_where_the_operator_says_so() -> None:
    assert load({}).fhir.update_create is False
    assert load({"RCP_FHIR_UPDATE_CREATE": "on"}).fhir.update_create is True
    assert faults(RCP_FHIR_UPDATE_CREATE="yes") == ["RCP_FHIR_UPDATE_CREATE : attendu on ou off"]


def test_files_that_make_no_tls_port_are_refused_by_name(tmp_path: Path) -> None:
    assert Tls().serving() is None
    nonsense = tmp_path / "certificat.pem"
    nonsense.write_text("rien")
    for tls in (Tls(nonsense, nonsense), Tls(tmp_path / "absent.pem", nonsense)):
        with pytest.raises(Fault) as refused:
            tls.serving()
        assert refused.value.code == "tls-fichiers"


@pytest.mark.parametrize("instead", ["rien", "", "authority", "der"])
def test_what_is_no_list_of_revocations_makes_no_port(tmp_path: Path, instead: str) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("passerelle.example")
    lists = tmp_path / "liste.crl"
    good = authority.revoke()
    lists.write_bytes(good)
    assert Tls(certificate, key, authority.file, lists).serving() is not None
    stranger = Authority(tmp_path / "autre").file.read_bytes()
    said = {"authority": good + stranger, "der": authority.revoke(der=True)}
    lists.write_bytes(said.get(instead, instead.encode()))
    with pytest.raises(Fault) as refused:
        Tls(certificate, key, authority.file, lists).serving()
    assert refused.value.code == "tls-fichiers"
