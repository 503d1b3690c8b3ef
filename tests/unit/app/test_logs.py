"""A log line says what broke and where, never what it broke on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CANARY = "ZZCANARIQUE"
PROGRAM = f"""
import logging
import structlog
from sqlalchemy.exc import DataError
from gateway.app import logs
from gateway.errors import Fault

logs.configure("info", "FORM")

def judge(name):
    raise ValueError("unknown patient " + name)

def keep(name):
    try:
        judge(name)
    except ValueError as error:
        raise DataError("INSERT INTO patient VALUES (%s)", [name], Exception("value " + name)) from error

def serve(name):
    try:
        keep(name)
    except DataError as error:
        raise Fault("fault-code", "Erreur interne.") from error

try:
    serve("{CANARY}")
except Fault as error:
    structlog.get_logger("ours").error("unforeseen", exc_info=error)
    structlog.get_logger("ours").exception("unforeseen")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    logging.getLogger("library").exception("failed")
"""


def _lines(form: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("FORM", form)], capture_output=True, text=True, timeout=60, check=True
    )
    assert CANARY not in done.stderr
    assert CANARY not in done.stdout
    return done.stderr.splitlines()


def test_the_types_and_the_place_are_said_for_ours_and_for_a_library() -> None:
    lines = [json.loads(line) for line in _lines("json")]
    assert [line["event"] for line in lines] == ["unforeseen", "unforeseen", "Exception in ASGI application", "failed"]
    for line in lines:
        assert (line["error"], line["causes"]) == ("Fault", ["DataError", "ValueError"])
        assert line["code"] == "fault-code"
        assert [place.partition(" ")[2] for place in line["where"]] == ["keep", "judge"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_one_line_an_event(form: str) -> None:
    assert len(_lines(form)) == 4
