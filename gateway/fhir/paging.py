"""Pages of one search: a snapshot read in keyset order [FHIR R4 http#paging; DESIGN §3, Cursors].

The first page is read as things are, and keeps what the database calls its snapshot: which transactions were committed
then. A later page holds the rows that are current and were visible in that snapshot and, for the few resources that
changed since, the newest of their versions that was. So nobody is shown twice and nobody is skipped while others write,
whatever the order; only what is deleted by now, or hidden from the caller by now, no longer appears.

A place in the order is the last row shown, by id and version, and the page begins beyond its keys: no row is counted
off, so the hundredth page costs what the second does.

Promises: a token says nothing to who holds it (a search may name a patient), cannot be altered, made up, used for
another search or by another client, and ends after a time (``RCP_LIMIT_SEARCH_MINUTES``); each refusal has a name of
its own.
"""

from __future__ import annotations

import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    FromClause,
    Numeric,
    Select,
    Table,
    and_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.types import Text, TypeEngine, UserDefinedType

from gateway.errors import InvalidContent, NotFound
from gateway.fhir.search_kinds import LookedUp
from gateway.model.store import XactId
from gateway.rcp.access import Caller
from gateway.settings import Limits

__all__ = [
    "PAGE",
    "Key",
    "Mark",
    "Pages",
    "below",
    "beyond",
    "first_of_few",
    "first_page",
    "keys_of",
    "later_page",
    "of",
    "order",
    "snapshot_column",
]

#: The parameter that carries a token.
PAGE = "_page"
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an order; what a resource does not say comes last."""

    column: ColumnElement[Any]
    descending: bool = False
    nullable: bool = True


class Mark(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A place in the answers of one search.

    Attributes
    ----------
    what
        ``search``, ``history`` of a type, or of one resource.
    path
        The address that was asked, below our base.
    pairs
        The parameters as understood.
    snapshot, own
        Which transactions the first page saw; the one that it was itself part of, if it had written.
    row
        Id and version of the row beyond which the page lies; none: it begins at an end.
    back
        Whether the page lies before that row.
    total
        As the first page said it.
    rest
        Rows of the page that following the links ends with, as counted on the first one; none where that is not known:
        no total was counted, or a page was cut where its resources are large.
    posted
        Whether the search came by POST, so that its parameters stay out of addresses.
    whose
        Who asked (`of`): the parameters and the total are his alone.
    """

    path: str
    pairs: tuple[tuple[str, str], ...]
    snapshot: str
    own: str | None = None
    row: tuple[str, int] | None = None
    back: bool = False
    total: int | None = None
    posted: bool = False
    made: int = 0
    whose: str = ""
    rest: int = 0


def of(caller: Caller) -> str:
    """Name who asks, as the tokens of his pages do."""
    return f"{caller.kind}|{caller.partner_id}|{caller.practitioner_id}|{caller.identifier}"


class Pages:
    """Seals and opens the tokens of pages.

    Parameters
    ----------
    key
        32 bytes, the same in every process of one gateway.
    limits
        How long a token is good for.
    """

    def __init__(self, key: bytes, limits: Limits) -> None:
        self._cipher = AESGCM(key)
        self._limits = limits

    def seal(self, mark: Mark) -> str:
        """Write a mark as a token."""
        nonce = secrets.token_bytes(_NONCE)
        if not mark.made:
            mark = msgspec.structs.replace(mark, made=int(time.time()))
        said = msgspec.msgpack.encode(mark)
        return urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, said, None)).rstrip(b"=").decode("ascii")

    def open(self, token: str, path: str, beside: Sequence[tuple[str, str]] = (), *, whose: str = "") -> Mark:
        """Read a token.

        Parameters
        ----------
        path
            The address that it came to.
        beside
            The parameters that came with it: none, or those of the search that it belongs to.
        whose
            Who follows the link (`of`).

        Raises
        ------
        InvalidContent
            ``page-alteree``, ``page-d-une-autre-recherche``.
        NotFound
            ``page-perimee`` (410).
        """
        try:
            sealed = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
            said = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
            mark = msgspec.msgpack.decode(said, type=Mark)
        except (ValueError, InvalidTag, msgspec.MsgspecError):
            text = "Lien de page illisible ou modifié : suivez les liens tels qu’ils ont été donnés."
            raise InvalidContent("page-alteree", text, expression=PAGE) from None
        if mark.path != path or (beside and tuple(beside) != mark.pairs):
            text = "Ce lien de page appartient à une autre recherche."
            raise InvalidContent("page-d-une-autre-recherche", text, expression=PAGE)
        minutes = self._limits.search_minutes
        if not mark.made <= time.time() < mark.made + 60 * minutes:
            text = f"Lien de page périmé : les pages se suivent en {minutes} min ({Limits.variable('search_minutes')})."
            raise NotFound("page-perimee", text)
        if mark.whose != whose:
            text = "Ce lien de page a été donné à un autre client."
            raise InvalidContent("page-d-une-autre-recherche", text, expression=PAGE)
        return mark


# What was visible then


class _Snapshot(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "pg_snapshot"


@cache
def snapshot_column() -> ColumnElement[Any]:
    """The snapshot of this very statement, and the transaction that it stands in if that wrote: ``snapshot/xid``."""
    own = func.coalesce(cast(func.pg_current_xact_id_if_assigned(), Text()), literal_column("''"))
    said = cast(func.pg_current_snapshot(), Text()).concat(literal_column("'/'")).concat(own)
    return select(said).scalar_subquery().label("snapshot")


def _xid(digits: str) -> ColumnElement[Any]:
    # Neither driver knows the type: both send text.
    return cast(cast(literal(digits, Text()), Text()), XactId())


def _seen(xid: ColumnElement[Any], mark: Mark) -> ColumnElement[bool]:
    """Whether a row was there when the first page was read."""
    # Read once for the statement, not once a row.
    snapshot = select(cast(cast(literal(mark.snapshot, Text()), Text()), _Snapshot())).scalar_subquery()
    seen = func.pg_visible_in_snapshot(xid, snapshot)
    return seen if mark.own is None else or_(seen, xid == _xid(mark.own))


def _least(mark: Mark) -> str:
    return mark.snapshot.partition(":")[0]


def below(table: Table, mark: Mark | None) -> ColumnElement[bool]:
    """Only rows below the transaction horizon: nothing older can still be committed [DESIGN §3, Cursors]."""
    horizon = func.pg_snapshot_xmin(func.pg_current_snapshot()) if mark is None else _xid(_least(mark))
    return table.c.xid < horizon


# The order

_TYPES: tuple[tuple[type, TypeEngine[Any]], ...] = (
    (bool, Boolean()),
    (int, BigInteger()),
    (Decimal, Numeric()),
    (float, Numeric()),
    (datetime, DateTime(timezone=True)),
    (str, Text()),
)


def _bound(value: Any) -> ColumnElement[Any]:
    kind = next(sql for python, sql in _TYPES if isinstance(value, python))
    return cast(literal(value, kind), kind)


def order(keys: Sequence[Key], *, back: bool = False) -> list[ColumnElement[Any]]:
    """Write an order; backwards, what is not said comes first."""
    found: list[ColumnElement[Any]] = []
    for key in keys:
        column = key.column.desc() if key.descending != back else key.column.asc()
        if key.nullable:
            column = column.nulls_first() if back else column.nulls_last()
        found.append(column)
    return found


def beyond(keys: Sequence[Key], values: Sequence[Any], *, back: bool = False) -> ColumnElement[bool]:
    """Whether a row lies beyond a place in the order, given by the values of its keys."""
    same: list[ColumnElement[bool]] = []
    ways: list[ColumnElement[bool]] = []
    for key, value in zip(keys, values, strict=True):
        if value is None:
            if back:
                ways.append(and_(*same, key.column.is_not(None)))
            same.append(key.column.is_(None))
            continue
        place = _bound(value)
        further = key.column < place if key.descending != back else key.column > place
        if key.nullable and not back:
            further = or_(further, key.column.is_(None))
        ways.append(and_(*same, further))
        same.append(key.column == place)
    lies = or_(*ways)
    first = keys[0]
    if first.nullable or len(keys) == 1 or values[0] is None:
        return lies
    # The same again as a bound of the first key, which an index can use.
    place = _bound(values[0])
    return and_(first.column <= place if first.descending != back else first.column >= place, lies)


def _labels(keys: Sequence[Key]) -> list[ColumnElement[Any]]:
    return [key.column.label(f"k{number}") for number, key in enumerate(keys)]


def found_first(table: Table) -> ColumnElement[bool]:
    """Say to the planner, by a condition that is always true, that few rows will match what is searched by.

    Of a text that is not among the most common the planner knows nothing, and takes a fixed share of the table for it;
    with an order and a limit it then walks the table in that order, in the hope of meeting one soon: a million rows for
    one patient. With this it walks only for what it knows to be common, and else looks into the index of what is
    searched. It takes an equation of two expressions for true of one row in two hundred.
    """
    return table.c.version + literal_column("0") == table.c.version


def keys_of(table: Table, keys: Sequence[Key], row: tuple[str, int]) -> Select[Any]:
    """Ask for the keys of one row, as ``k0``, ``k1`` …; old versions keep theirs."""
    return select(*_labels(keys)).where(table.c.id == row[0], table.c.version == row[1])


_KEPT: OrderedDict[Hashable, Select[Any]] = OrderedDict()
#: Shapes that are kept, and values of one: a list of ids is as long as a search may list.
_KEPT_MAX, _KEPT_BINDS = 512, 256


def kept(
    key: Hashable,
    where: Callable[[], ColumnElement[bool]],
    make: Callable[[ColumnElement[bool]], Select[Any]],
    asked: Sequence[LookedUp] = (),
) -> tuple[Select[Any], Mapping[str, Any] | None]:
    """Give the statement of a question of this shape, made once, and the values that this question puts into it.

    Making a statement and looking it up costs more than asking the database; of a question like an earlier one only the
    values are new. Its own binds are named, so that it can be asked again with others.

    Parameters
    ----------
    key
        All that the statement depends on beside ``where``.
    where
        Writes the condition of the question.
    asked
        What it looks up, if it does nothing else: its shape is known before it is written.

    Returns
    -------
    tuple
        Without values when the shape cannot be kept.
    """
    looks = (key, tuple([(one.column.name, one.beginnings) for one in asked]))
    if asked and (statement := _KEPT.get(looks)) is not None:
        _latest(looks, statement)
        return statement, {f"asked_{number}": one.texts for number, one in enumerate(asked)}
    whole = where()
    shape = whole._generate_cache_key()  # noqa: SLF001 - what SQLAlchemy itself keys its cache by
    if shape is None or len(shape.bindparams) > _KEPT_BINDS:
        return make(whole), None
    if any(bind.expanding or bind.literal_execute for bind in shape.bindparams):
        return make(whole), None
    values = {f"asked_{number}": bind.effective_value for number, bind in enumerate(shape.bindparams)}
    place = looks if asked else (key, shape.key)
    statement = _KEPT.get(place)
    if statement is None:
        named = {
            id(bind): bindparam(name, type_=bind.type) for bind, name in zip(shape.bindparams, values, strict=True)
        }

        def replace(element: Any, **_: Any) -> Any:
            return named.get(id(element)) if isinstance(element, BindParameter) else None

        statement = make(visitors.replacement_traverse(whole, {}, replace))
    _latest(place, statement)
    return statement, values


def _latest(place: Hashable, statement: Select[Any]) -> None:
    """Keep a statement longest; a step in another thread may just have let it go."""
    _KEPT[place] = statement
    with suppress(KeyError):
        _KEPT.move_to_end(place)
    while len(_KEPT) > _KEPT_MAX:
        _KEPT.popitem(last=False)


def first_page(
    table: Table, columns: Sequence[Any], wanted: Sequence[ColumnElement[bool]], keys: Sequence[Key], limit: int
) -> Select[Any]:
    """Read the first rows as things are, and which snapshot that was."""
    return (
        select(*columns, snapshot_column())
        .where(table.c.current, not_(table.c.deleted), *wanted)
        .order_by(*order(keys))
        .limit(limit)
    )


def first_of_few(
    table: Table, columns: Sequence[Any], wanted: Sequence[ColumnElement[bool]], keys: Sequence[Key], limit: int
) -> Select[Any]:
    """Read what `first_page` does by a statement that has one plan: all that match are found, then put in order.

    A plan for any values does not know the limit either. That all are found first keeps it from walking the table in
    the order asked for.
    """
    found = (
        select(*columns, *_labels(keys))
        .where(table.c.current, not_(table.c.deleted), *wanted)
        .offset(literal_column("0"))
        .subquery("found")
    )
    return select(found, snapshot_column()).order_by(*order(_placed(found, keys))).limit(limit)


def _placed(found: FromClause, keys: Sequence[Key]) -> list[Key]:
    """Keys as columns of what they were selected in."""
    return [Key(found.c[f"k{number}"], key.descending, key.nullable) for number, key in enumerate(keys)]


def later_page(
    table: Table,
    columns: Sequence[Any],
    wanted: Sequence[ColumnElement[bool]],
    visible: ColumnElement[bool],
    keys: Sequence[Key],
    mark: Mark,
    values: Sequence[Any] | None,
    limit: int,
) -> Select[Any]:
    """Read the rows beyond a place, as they were in the snapshot of the first page.

    Parameters
    ----------
    wanted
        What a row must be to be found, the access predicate too.
    visible
        The access predicate alone: what changed since must still be the caller's to see.
    values
        Keys of the place; `None`: from the end that the mark looks from.
    """
    place = [] if values is None else [beyond(keys, values, back=mark.back)]
    selected = [*columns, *_labels(keys)]
    ordered = order(keys, back=mark.back)
    kept = (
        select(*selected)
        .where(table.c.current, not_(table.c.deleted), _seen(table.c.xid, mark), *wanted, *place)
        .order_by(*ordered)
        .limit(limit)
        .subquery("kept")
    )
    moved = (
        select(table.c.id)
        .where(
            table.c.current,
            not_(table.c.deleted),
            # A first version that was not there then has no older one.
            table.c.version > literal_column("1"),
            table.c.xid >= _xid(_least(mark)),
            not_(_seen(table.c.xid, mark)),
            visible,
        )
        .subquery("moved")
    )
    older = table.alias("older")
    newest = (
        select(func.max(older.c.version))
        .where(older.c.id == moved.c.id, _seen(older.c.xid, mark))
        .correlate(moved)
        .scalar_subquery()
    )
    then = (
        select(*selected)
        .join_from(moved, table, and_(table.c.id == moved.c.id, table.c.version == newest))
        .where(not_(table.c.deleted), *wanted, *place)
        .order_by(*ordered)
        .limit(limit)
        .subquery("was")
    )
    both = union_all(select(kept), select(then)).subquery("page")
    return select(both).order_by(*order(_placed(both, keys), back=mark.back)).limit(limit)
