"""Whether what a write concerns may be written: its owner, its versions, its id.

[FHIR R4 http#upsert, #concurrency, #delete; spec fhir-fr 3.1, 4.1]

Promises: a condition that a client states (If-None-Exist, a search in the URL, If-Match, If-None-Match) is judged under
a lock that holds until its effect is committed; ids of what is new are made here; a patch is laid over what is kept
under that lock. Not promised: any effect.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from gateway.errors import Conflict, Forbidden, GatewayError, InvalidContent, NotFound, Unavailable, Unsupported
from gateway.fhir import binaries, conditions, document, validate
from gateway.fhir.auth_scopes import require_scope
from gateway.fhir.finding import LETTERS, Finder, Into, id_key
from gateway.fhir.keeping import current
from gateway.fhir.operation import Operation
from gateway.fhir.owners import owner_of
from gateway.fhir.patch import patched
from gateway.fhir.reading import deleted
from gateway.fhir.search_conditions import ID
from gateway.identifiers import uuid7
from gateway.model import writes
from gateway.rcp import access

__all__ = ["Locator"]

#: Types on which a version-aware update is required where a root of ours stands behind them [spec fhir-fr 3.1].
_VERSION_AWARE = frozenset({"Task", "Appointment", "Composition"})
#: Types that always stand for a root of ours: its key is a UUID. Where only some do, their verb says so.
_ROOTED = frozenset({"Patient", "Task"})
#: Types whose id comes from the root that their verb makes or finds.
_NAMED_BY_VERB = frozenset({"Patient", "Task"})
#: Types of which a dossier has one under its own id, though not from its start.
_LATER = frozenset({"Encounter"})
#: How often what a condition names may change under our eyes before we give up.
_TURNS = 5


class Locator(Finder):
    """Finds and judges what one step's writes concern."""

    def locate(self, operation: Operation) -> None:
        """Find what one operation concerns and judge its conditions; see `locate_all`."""
        for refusal in self.locate_all([operation]).values():
            raise refusal

    def locate_all(
        self, operations: Sequence[Operation], references: Iterable[tuple[str, str]] = ()
    ) -> dict[int, GatewayError]:
        """Find what operations concern and judge their conditions; ids of what is new are made here.

        Parameters
        ----------
        references
            Conditional references of the same step: type and search.

        Returns
        -------
        dict
            Refusals by place: ``plusieurs-correspondances``, ``version-perimee``, ``existe-deja`` (`Conflict`);
            unknown or deleted (`NotFound`); creation under a client's id, a type of another owner, an id of the body
            that is not the URL's.
        """
        refused: dict[int, GatewayError] = {}
        asked = [(op.kind, op.query) for op in operations if op.query is not None]
        self.hold_keys(operations, refused, references)
        if len(asked) > 1 and not refused:
            self.foresee([*asked, *references])
        # What is deleted goes first: later conditions no longer see it [FHIR R4 http#trules].
        order = sorted(range(len(operations)), key=lambda index: operations[index].method != "DELETE")
        for turn in range(_TURNS):
            self.find(operations, order, refused)
            if self.hold_rows([operations[index] for index in order if index not in refused]):
                break
            if turn + 1 == _TURNS:
                raise Unavailable("contention", "Trop d’écritures simultanées.", retry_after_s=1)
        for index in order:
            if index not in refused:
                with Into(refused, index):
                    self._judge(operations[index])
        return refused

    def _judge(self, operation: Operation) -> None:
        """Judge what was found: its owner, its versions, whether it may be made or changed."""
        method = operation.method
        if method == "PUT" and operation.identity is not None and self.writing.update_create:
            self._queue(operation)
        if operation.before is None and method in LETTERS:
            self._judge_absent(operation)
        elif operation.before is not None and operation.before.deleted:
            self._judge_deleted(operation)
        before = operation.before
        self._judge_versions(operation)
        existing = before is not None and method in LETTERS
        require_scope(self.writing.step.caller, operation.kind, "d" if method == "DELETE" else "u" if existing else "c")
        if existing:
            self._require_owner(operation)
        if operation.patch is not None and before is not None and not operation.untouched:
            operation.tree = patched(operation.patch, document.decode(self._whole(operation.kind, before.body)))
            validate.accept(operation.tree, operation.where)
            operation.method, operation.patch = "PUT", None
        if operation.identity is None and operation.kind not in _NAMED_BY_VERB and method != "DELETE":
            key = uuid7()
            writes.name(self.writing.step.session, key)
            operation.identity = str(key)

    def _whole(self, kind: str, body: bytes) -> bytes:
        """Stored bytes, with the data of a large Binary."""
        key = binaries.mark_in(body) if kind == "Binary" else None
        blobs = self.writing.ports.blobs
        return body if key is None or blobs is None else binaries.filled(body, blobs.read(key))

    def _queue(self, operation: Operation) -> None:
        """Read again under the lock of all who name an id that nobody uses yet, or any longer."""
        if operation.before is not None and not operation.before.deleted:
            return
        self.writing.step.serialise(id_key(operation.kind, operation.identity or ""))
        for _ in range(_TURNS):
            rows = self.rows(operation.kind, [operation.identity or ""])
            operation.before = rows[0] if rows else None
            if operation.before is None or operation.before.deleted or self.hold_rows([operation]):
                return

    def _judge_deleted(self, operation: Operation) -> None:
        """Bring what was deleted back by a PUT, where a client may name ids; a second delete has nothing to do."""
        if operation.method == "DELETE":
            operation.untouched = True
        elif operation.method == "PUT" and self.writing.update_create and self._owns(operation.before):
            self._require_fit_id(operation)
            operation.before = None
        else:
            row: Any = operation.before
            ids = {"record_id": row.record_id, "dossier_id": row.dossier_id}
            raise deleted(self.writing.step.caller, operation.kind, row.id, row.version, **ids)

    def _owns(self, row: Any) -> bool:
        return bool(row.partner_id == self.writing.partner.id)

    def _judge_absent(self, operation: Operation) -> None:
        if operation.method == "DELETE":
            operation.untouched = True
        elif operation.method == "PATCH" and operation.query is not None:
            raise NotFound("inconnu", "Aucune ressource ne correspond à la condition.")
        elif operation.method == "PATCH":
            raise access.hidden(self.writing.step.caller, operation.kind, operation.identity)
        elif operation.identity is not None:
            self._judge_upsert(operation)

    def _judge_upsert(self, operation: Operation) -> None:
        if not self.writing.update_create:
            text = (
                "Ressource inconnue ; une création se fait par POST, ou par PUT avec une condition sur l’identifiant."
            )
            raise Unsupported("creation-par-id", text, expression=f"{operation.kind}.id")
        self._require_fit_id(operation)
        if current(self.writing.step.session, operation.kind, operation.identity or "") is not None:
            # It exists, not for this caller.
            raise access.hidden(self.writing.step.caller, operation.kind, operation.identity)
        task = (
            current(self.writing.step.session, "Task", operation.identity or "") if operation.kind in _LATER else None
        )
        if task is not None and task.root_kind is not None:
            text = "Cet identifiant est celui d’un dossier."
            raise Conflict("cle-modifiee", text, expression=f"{operation.kind}.id")

    def _require_fit_id(self, operation: Operation) -> None:
        said = operation.identity or ""
        fit = ID.fullmatch(said) is not None
        if fit and operation.kind in _ROOTED:
            try:
                fit = str(uuid.UUID(said)) == said
            except ValueError:
                fit = False
        if not fit:
            form = "un UUID en minuscules" if operation.kind in _ROOTED else "1 à 64 lettres, chiffres, « - » ou « . »"
            text = f"L’identifiant d’une ressource {operation.kind} est {form}."
            raise InvalidContent("valeur-invalide", text, expression=f"{operation.kind}.id")

    def _judge_versions(self, operation: Operation) -> None:
        before = operation.before
        version = before.version if before is not None and not before.deleted else None
        if operation.if_none_match is not None:
            unwanted = conditions.tags(operation.if_none_match, "If-None-Match")
            if unwanted.hold(version):
                raise Conflict("existe-deja", "La ressource existe déjà.", precondition=True)
        if operation.if_match is not None:
            wanted = conditions.tags(operation.if_match, "If-Match")
            if not wanted.hold(version):
                held = "aucune" if version is None else str(version)
                text = f"Version périmée : {held} au lieu de celle attendue par If-Match."
                raise Conflict("version-perimee", text, precondition=True)
        elif operation.kind in _VERSION_AWARE and operation.method in {"PUT", "PATCH"} and _rooted(before):
            text = "Cette ressource se met à jour avec l’en-tête If-Match."
            raise InvalidContent("version-exigee", text, expression=operation.kind)

    def _require_owner(self, operation: Operation) -> None:
        if operation.untouched or operation.before is None:
            return
        owner = owner_of(operation.kind, operation.before, self.writing.partner.id)
        if owner is not None:
            text = f"Cette ressource est écrite par {owner} seulement."
            raise Forbidden("proprietaire", text, expression=operation.where or operation.kind)


def _rooted(row: Any | None) -> bool:
    return row is not None and not row.deleted and row.root_kind is not None
