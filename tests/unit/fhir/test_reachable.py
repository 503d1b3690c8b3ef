"""Addresses that a stranger chose: none leads inside, whatever its name says, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Forbidden, Unavailable
from gateway.fhir.reachable import Endpoints, by_mail, is_outside

PUBLIC = "93.184.215.14"


def answering(*answers: Sequence[str]) -> Endpoints:
    """Endpoints whose names are looked up as a script says."""
    waiting = list(answers)

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return waiting.pop(0)

    return Endpoints(lookup=lookup)


# Of the registries of special addresses [RFC 6890] and their updates, and IPv4 in disguise.
INSIDE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
    *("169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.0.170", "192.0.2.1", "192.88.99.1", "198.18.0.1"),
    *("198.51.100.1", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1", "3fff::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "::7f00:1"),
    *("2002:7f00:1::", "2002:a00:1::1", "2001:0:a00:1::f5ff:fffe"),
]


@pytest.mark.parametrize("address", INSIDE)
def test_no_special_address_is_outside(address: str) -> None:
    assert not is_outside(ip_address(address))
    shown = f"[{address}]" if ":" in address else address
    assert not Endpoints().takes(f"https://{shown}/hook")
    with pytest.raises(Forbidden, match="pas de celles"):
        asyncio.run(answering([address]).pin("https://gw.dcc-b.example/hook"))


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"])
def test_a_public_address_is_reached_as_it_was_looked_at(address: str) -> None:
    way = asyncio.run(answering([address], ["10.0.0.1"]).pin("https://gw.dcc-b.example:8443/hook?site=1"))
    shown = f"[{address}]" if ":" in address else address
    assert way.url == f"https://{shown}:8443/hook?site=1"
    assert (way.host, way.name) == ("gw.dcc-b.example:8443", "gw.dcc-b.example")


def test_one_address_inside_among_others_is_enough_to_refuse() -> None:
    for found in ([PUBLIC, "10.0.0.1"], ["::1", PUBLIC], []):
        with pytest.raises(Forbidden):
            asyncio.run(answering(found).pin("https://gw.dcc-b.example/hook"))


def test_a_name_is_judged_anew_each_time() -> None:
    endpoints = answering([PUBLIC], ["127.0.0.1"])
    asyncio.run(endpoints.pin("https://gw.dcc-b.example/hook"))
    with pytest.raises(Forbidden):
        asyncio.run(endpoints.pin("https://gw.dcc-b.example/hook"))


def test_a_name_that_nobody_knows_may_be_known_later() -> None:
    async def lookup(_host: str, _port: int) -> Sequence[str]:
        raise OSError

    with pytest.raises(Unavailable):
        asyncio.run(Endpoints(lookup=lookup).pin("https://gw.dcc-b.example/hook"))


def test_only_hosts_that_an_operator_named_are_told() -> None:
    endpoints = Endpoints(hosts=("ehr.chu-x.example", "*.dcc-b.example"))
    assert endpoints.takes("https://ehr.chu-x.example/hook")
    assert endpoints.takes("https://EHR.chu-x.example/hook")
    assert endpoints.takes("https://a.gw.dcc-b.example/hook")
    for other in ("chu-x.example", "dcc-b.example", "evil-dcc-b.example", "ehr.chu-x.example.evil.example", PUBLIC):
        assert not endpoints.takes(f"https://{other}/hook")


def test_this_machine_is_told_in_trials_only() -> None:
    for here in ("http://127.0.0.1:8081/hook", "https://localhost/hook", "http://[::1]/hook"):
        assert Endpoints(loopback=True).takes(here)
        assert not Endpoints().takes(here)
    for elsewhere in ("http://gw.dcc-b.example/", "https://10.0.0.1/", "http://192.168.1.1/", "ftp://127.0.0.1/"):
        assert not Endpoints(loopback=True).takes(elsewhere)

    # A name of loopback that is looked up elsewhere is not it.
    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return ["10.0.0.1"]

    with pytest.raises(Forbidden):
        asyncio.run(Endpoints(loopback=True, lookup=lookup).pin("http://localhost/hook"))


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "https://",
        "https:///hook",
        "https://a@gw.dcc-b.example/",
        "https://@gw.dcc-b.example/",
        "https://gw.dcc-b.example#x",
        "https://gw.dcc-b.example\\@127.0.0.1/",
        "https://gw.dcc-b.example\t/",
        "https://gw.dcc-b.example\r\nHost: x/",
        "https://gw.dcc-b.example:0/",
        "https://gw.dcc-b.example:99999/",
        "https://gw.dcc-b.example:x/",
        "https://[::1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.1/",
        "https://017700000001/",
        "https://serveur/",
        "https://pacs.local/",
        "https://gateway.internal/",
        "https://ⅰ⑲.example/",
        "https://" + "a" * 3000 + ".example/",
        "javascript:alert(1)",
    ],
)
def test_what_could_mean_two_places_is_no_address(odd: str) -> None:
    assert not Endpoints().takes(odd)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"https?://[^/]{0,40}(/.{0,10})?", fullmatch=True), st.booleans())
def test_whatever_is_asked_for_is_judged(address: str, trial: bool) -> None:
    endpoints = answering(["10.0.0.1"]) if not trial else Endpoints(loopback=True)
    if endpoints.takes(address) and not trial:
        with pytest.raises(Forbidden):
            asyncio.run(endpoints.pin(address))
    assert isinstance(by_mail(address), bool)


def test_a_mailbox_outside() -> None:
    assert by_mail("mailto:dsi@dcc-b.example")
    for odd in (
        "mailto:dsi@localhost",
        "mailto:dsi@dcc-b.example?bcc=x@y.example",
        "mailto:@dcc-b.example",
        "dsi@x.fr",
    ):
        assert not by_mail(odd)
