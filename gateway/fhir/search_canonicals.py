"""Canonical references followed: to what carries the URL, in the version that is said [FHIR R4 references#canonical].

A reference without a version leads to every version held, one with a version to that one alone. What refers says
``url|version``, or ``url|`` where it says no version (`gateway.fhir.search_columns`); what is referred to has both
names, made here from its own ``url`` and ``version``.

Promises: an index answers each condition; versions are compared as texts, whole.
Not promised: a canonical longer than an entry, or one with a fragment, which names a part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.types import Text

from gateway.fhir.search_columns import IS, Parameter, entry, parameters, token
from gateway.fhir.search_kinds import holds, points_to, texts_of
from gateway.model.representation import TABLES

__all__ = ["leads_to", "named_by", "named_in", "names", "referring"]

_URL = entry("url", "")
_VERSION = entry("version", token(None, ""))


def leads_to(parameter: Parameter, kind: str) -> bool:
    """Whether a parameter may name a resource of this type by its canonical URL."""
    return parameter.canonical and points_to(parameter, kind) and {"url", "version"} <= parameters(kind).keys()


def names(kind: str) -> ColumnElement[Any]:
    """What canonical references call a row, as an array: ``url|`` and ``url|version``."""
    url, version = _own(kind, _URL), _own(kind, _VERSION)
    return array([url + "|", url + "|" + version], type_=Text())


def _own(kind: str, begin: str) -> ColumnElement[Any]:
    text = func.unnest(TABLES[kind].c.terms).column_valued()
    own = func.min(func.substr(text, len(begin) + 1), type_=Text())
    return select(own).where(func.starts_with(text, begin)).scalar_subquery()


def referring(parameter: Parameter, kind: str, *rows: ColumnElement[bool]) -> Select[Any]:
    """Select, as one array, the entries of a parameter that leads to these rows of a type."""
    named = select(func.unnest(names(kind), type_=Text()).label("name")).where(*rows).correlate(None).subquery()
    return select(func.array_agg(literal(parameter.code + IS, Text()) + named.c.name))


def named_by(kind: str, said: Iterable[str]) -> ColumnElement[bool]:
    """Whether a row is called by one of these names."""
    wanted = sorted(set(said))
    urls = sorted({one.partition("|")[0] for one in wanted})
    return and_(holds(TABLES[kind], [_URL + url for url in urls]), _called(kind, texts_of(wanted)))


def named_in(parameter: Parameter, kind: str, entries: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a row is called by what the entries of other rows hold of a parameter."""
    begin = parameter.code + IS
    name = func.substr(entries, len(begin) + 1)
    held = (func.starts_with(entries, begin), func.strpos(entries, "|") > 0)
    urls = select(func.array_agg(literal(_URL, Text()) + func.split_part(name, "|", 1))).where(*held)
    said = select(func.array_agg(name)).where(*held)
    with_url = TABLES[kind].c.terms.op("&&", is_comparison=True)(cast(urls.scalar_subquery(), ARRAY(Text())))
    return and_(with_url, _called(kind, cast(said.scalar_subquery(), ARRAY(Text()))))


def _called(kind: str, said: ColumnElement[Any]) -> ColumnElement[bool]:
    return names(kind).op("&&", is_comparison=True)(said)
