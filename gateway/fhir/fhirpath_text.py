"""The text of a FHIRPath, read once into the steps that `gateway.fhir.fhirpath` walks [FHIR R4 fhirpath, fhirpatch].

A subset: names, choices by their stem, indexes, ``where``, ``exists``, ``empty``, ``not``, ``first``, ``last``,
``tail``, ``single``, ``skip``, ``take``, ``ofType``, ``as``, ``extension``, ``startsWith``, ``endsWith``, ``contains``,
``=``, ``!=``, ``and``, ``or``, parentheses and literals. Promises: length and nesting are bounded.
Not offered, and refused by name: other functions, ``resolve``, regular expressions, arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from gateway.fhir.fhirpath import FUNCTIONS, Binary, Literal, Path, Step, unreadable

__all__ = ["parse"]

#: Characters of one path, and parentheses within parentheses.
_LENGTH_MAX = 2000
_NESTED_MAX = 10

_TOKEN = re.compile(
    r"\s*(?:(?P<name>\$this|[A-Za-z_][A-Za-z0-9_]*)|`(?P<quoted>[A-Za-z0-9_]+)`"
    r"|'(?P<text>(?:[^'\\]|\\.)*)'|(?P<number>-?[0-9]{1,18}(?:\.[0-9]{1,18})?)|@(?P<moment>[0-9T:+.Z-]+)"
    r"|(?P<sign>!=|[=.()\[\],]))"
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}


def parse(text: str) -> Path:
    """Read a path.

    Raises
    ------
    InvalidContent
        ``patch-illisible``: no path, or one that is not offered.
    """
    if len(text) > _LENGTH_MAX:
        raise unreadable(f"Chemin FHIRPath trop long : limite {_LENGTH_MAX} caractères.")
    reader = _Reader(_tokens(text))
    found = reader.expression()
    if reader.here is not None or not isinstance(found, Path):
        raise unreadable("Chemin FHIRPath illisible ou non offert.")
    return found


def _tokens(text: str) -> list[tuple[str, str]]:
    found, place, stripped = [], 0, text.rstrip()
    while place < len(stripped):
        match = _TOKEN.match(stripped, place)
        if match is None:
            raise unreadable("Chemin FHIRPath illisible ou non offert.")
        kind = str(match.lastgroup)
        found.append((kind, match.group(kind)))
        place = match.end()
    return found


class _Reader:
    """Recursive descent over the tokens of one path."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0
        self._depth = 0

    @property
    def here(self) -> tuple[str, str] | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self, kind: str, text: str | None = None) -> str | None:
        token = self.here
        if token is None or token[0] != kind or (text is not None and token[1] != text):
            return None
        self._place += 1
        return token[1]

    def _need(self, sign: str) -> None:
        if self._take("sign", sign) is None:
            raise unreadable(f"Chemin FHIRPath illisible : « {sign} » est attendu.")

    def expression(self) -> Any:
        self._depth += 1
        if self._depth > _NESTED_MAX:
            raise unreadable(f"Chemin FHIRPath trop imbriqué : limite {_NESTED_MAX}.")
        found = self._joined(("or",), lambda: self._joined(("and",), self._comparison))
        self._depth -= 1
        return found

    def _joined(self, words: tuple[str, ...], below: Callable[[], Any]) -> Any:
        found = below()
        while (token := self.here) is not None and token[0] == "name" and token[1] in words:
            self._place += 1
            found = Binary(token[1], found, below())
        return found

    def _comparison(self) -> Any:
        left = self._term()
        for sign in ("=", "!="):
            if self._take("sign", sign) is not None:
                return Binary(sign, left, self._term())
        return left

    def _term(self) -> Any:
        text = self._take("text")
        if text is not None:
            return Literal(re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text))
        number = self._take("number")
        if number is not None:
            return Literal(Decimal(number) if "." in number else int(number))
        moment = self._take("moment")
        if moment is not None:
            return Literal(moment)
        token = self.here
        if token is not None and token[0] == "name" and token[1] in {"true", "false"}:
            self._place += 1
            return Literal(token[1] == "true")
        if self._take("sign", "(") is not None:
            found = self.expression()
            self._need(")")
            return found
        return self._path()

    def _path(self) -> Path:
        steps = [self._step()]
        while True:
            if self._take("sign", ".") is not None:
                steps.append(self._step())
            elif self._take("sign", "[") is not None:
                number = self._take("number")
                if number is None or not number.isdecimal():
                    raise unreadable("Chemin FHIRPath illisible : un indice est attendu.")
                self._need("]")
                steps.append(Step("index", number=int(number)))
            else:
                return Path(tuple(step for step in steps if step.kind != "this"))

    def _step(self) -> Step:
        quoted = self._take("quoted")
        name = quoted or self._take("name")
        if name is None:
            raise unreadable("Chemin FHIRPath illisible : un nom est attendu.")
        if name == "$this":
            return Step("this")
        if quoted is not None or self._take("sign", "(") is None:
            return Step("child", name)
        arguments: list[Any] = []
        while self._take("sign", ")") is None:
            if arguments:
                self._need(",")
            arguments.append(self.expression())
        offered = FUNCTIONS.get(name)
        if offered is None or len(arguments) not in offered[0]:
            raise unreadable("Fonction FHIRPath non offerte dans un patch.")
        return Step("call", name, arguments=tuple(arguments))
