"""An answer holds no more bytes of resources than its limit, and following its links still shows everything once.

The lengths are of what each test sends; what is expected is counted on what arrives.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.settings import Limits
from tests.e2e.fhir.conftest import ALL_SCOPES

#: Bytes of one answer in this module.
ROOM = 20_000
#: Characters that resources hold: short, long, several to a page, and one longer than a whole answer.
LENGTHS = (10, 9000, 9000, 300, 25_000, 7000, 7000, 7000, 20, 30, 15_000, 40)
NAMED = f"limite {ROOM} (RCP_LIMIT_ANSWER_BYTES)"


@pytest.fixture
def limits() -> Limits:
    return dataclasses.replace(Limits(), answer_bytes=ROOM)


@pytest.fixture
def ehr(world: Any, admit: Any) -> Iterator[httpx.Client]:
    with admit(world.partner, scopes=ALL_SCOPES).client() as client:
        yield client


def place(number: int, length: int) -> dict[str, Any]:
    return {"resourceType": "Location", "name": f"Salle {number:03}", "description": "é" + "x" * (length - 1)}


def made(ehr: httpx.Client, tree: dict[str, Any]) -> str:
    answer = ehr.post(tree["resourceType"], json=tree)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def links(bundle: dict[str, Any]) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in bundle["link"]}


def walked(ehr: httpx.Client, url: str | None, relation: str = "next") -> Iterator[list[dict[str, Any]]]:
    """The entries of each page, none of them above the limit unless it is one resource alone."""
    while url:
        answer = ehr.get(url)
        assert answer.status_code == 200, answer.text
        entries = answer.json().get("entry", [])
        resources = [entry["resource"] for entry in entries if "resource" in entry]
        assert sum(map(weight, resources)) <= ROOM or len(entries) == 1
        yield entries
        url = links(answer.json()).get(relation)


def weight(resource: dict[str, Any]) -> int:
    return len(json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode())


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["resource"]["name"] for entry in entries]


class TestPages:
    """Searches."""

    @pytest.mark.parametrize("sort", ["", "&_sort=-name", "&_sort=-_lastUpdated"])
    def test_pages_of_large_resources_are_shorter_and_lose_nothing(self, ehr: httpx.Client, sort: str) -> None:
        for number, length in enumerate(LENGTHS):
            made(ehr, place(number, length))
        pages = [names(page) for page in walked(ehr, f"Location?_count=6{sort}")]
        assert sorted(one for page in pages for one in page) == [f"Salle {n:03}" for n in range(len(LENGTHS))]
        assert ["Salle 004"] in pages  # longer than an answer: alone
        assert all(1 <= len(page) <= 6 for page in pages)
        # No page is shorter than it need be: the next resource would not have fitted, or there are as many as asked.
        size = {f"Salle {number:03}": length for number, length in enumerate(LENGTHS)}
        for page, after in itertools.pairwise(pages):
            assert len(page) == 6 or sum(size[one] for one in [*page, after[0]]) > ROOM - 500 * 7
        first = ehr.get(f"Location?_count=6{sort}").json()
        assert first["total"] == len(LENGTHS)

    def test_pages_of_large_resources_go_back(self, ehr: httpx.Client) -> None:
        for number, length in enumerate(LENGTHS):
            made(ehr, place(number, length))
        answers = []
        url: str | None = "Location?_count=4&_sort=name"
        while url:
            answers.append(ehr.get(url).json())
            url = links(answers[-1]).get("next")
        before = [one for answer in answers[:-1] for one in names(answer["entry"])]
        back = [names(page) for page in walked(ehr, links(answers[-1])["previous"], "previous")]
        assert [one for page in reversed(back) for one in page] == before

    def test_where_pages_are_cut_no_last_one_is_named(self, ehr: httpx.Client) -> None:
        for number, length in enumerate((10, 9000, 9000, 9000, 10, 10)):
            made(ehr, place(number, length))
        answers = []
        url: str | None = "Location?_count=2&_sort=name"
        while url:
            answers.append(ehr.get(url).json())
            url = links(answers[-1]).get("next")
        assert [len(answer["entry"]) for answer in answers] == [2, 2, 2]
        assert names(ehr.get(links(answers[0])["last"]).json()["entry"]) == names(answers[-1]["entry"])
        cut = ehr.get("Location?_count=4&_sort=name").json()
        assert len(cut["entry"]) == 3
        assert "last" not in links(cut)
        after = ehr.get(links(cut)["next"]).json()
        assert "last" not in links(after)

    def test_what_includes_bring_beyond_it_is_left_out_and_said(self, ehr: httpx.Client) -> None:
        within = made(ehr, place(0, 8000))
        for number in range(1, 4):
            made(ehr, place(number, 6000) | {"partOf": {"reference": f"Location/{within}"}})
        answer = ehr.get(f"Location?_id={within}&_revinclude=Location:partof").json()
        modes = [entry["search"]["mode"] for entry in answer["entry"]]
        assert modes == ["match", "include", "outcome"]
        issue = answer["entry"][-1]["resource"]["issue"][0]
        assert (issue["severity"], issue["code"]) == ("warning", "too-costly")
        assert NAMED in issue["details"]["text"]
        # What was left out is found page by page.
        found = [one for page in walked(ehr, f"Location?partof=Location/{within}&_count=50") for one in names(page)]
        assert sorted(found) == ["Salle 001", "Salle 002", "Salle 003"]
        less = ehr.get(f"Location?_id={within}&_revinclude=Location:partof&_summary=true").json()
        assert less["entry"][-1]["search"]["mode"] == "outcome"  # what counts is what is read

    def test_includes_that_fit_are_all_there(self, ehr: httpx.Client) -> None:
        within = made(ehr, place(0, 4000))
        for number in range(1, 4):
            made(ehr, place(number, 4000) | {"partOf": {"reference": f"Location/{within}"}})
        answer = ehr.get(f"Location?_id={within}&_revinclude=Location:partof").json()
        assert [entry["search"]["mode"] for entry in answer["entry"]] == ["match", "include", "include", "include"]

    def test_contents_of_binaries_count_among_what_is_included(self, ehr: httpx.Client) -> None:
        data = base64.b64encode(b"\x00" * 60_000).decode("ascii")
        binary = made(ehr, {"resourceType": "Binary", "contentType": "application/octet-stream", "data": data})
        item = {"entry": [{"item": {"reference": f"Binary/{binary}"}}]}
        listed = made(ehr, {"resourceType": "List", "status": "current", "mode": "snapshot", **item})
        answer = ehr.get(f"List?_id={listed}&_include=List:item").json()
        assert [entry["search"]["mode"] for entry in answer["entry"]] == ["match", "outcome"]
        assert NAMED in answer["entry"][1]["resource"]["issue"][0]["details"]["text"]
        assert ehr.get(f"Binary/{binary}").json()["data"] == data


class TestHistories:
    """Histories."""

    def test_the_versions_of_a_resource_and_of_a_type(self, ehr: httpx.Client) -> None:
        identity = made(ehr, place(0, LENGTHS[0]))
        for number, length in enumerate(LENGTHS[1:], 1):
            answer = ehr.put(f"Location/{identity}", json=place(number, length) | {"id": identity})
            assert answer.status_code == 200, answer.text
        gone = ehr.delete(f"Location/{identity}")
        assert gone.status_code == 204, gone.text
        for path in (f"Location/{identity}/_history", "Location/_history"):
            for count in (4, 50):
                pages = list(walked(ehr, f"{path}?_count={count}"))
                tags = [entry["response"]["etag"] for page in pages for entry in page]
                assert tags == [f'W/"{version}"' for version in range(len(LENGTHS) + 1, 0, -1)]
                assert len(pages) > 4
            first = ehr.get(f"{path}?_count=50").json()
            assert first["total"] == len(LENGTHS) + 1

    def test_contents_of_binaries_count(self, ehr: httpx.Client) -> None:
        data = [base64.b64encode(bytes([number]) * 60_000).decode("ascii") for number in range(3)]
        for one in data:
            made(ehr, {"resourceType": "Binary", "contentType": "application/octet-stream", "data": one})
        pages = list(walked(ehr, "Binary/_history?_sort=_lastUpdated"))
        assert [[entry["resource"]["data"] for entry in page] for page in pages] == [[one] for one in data]
