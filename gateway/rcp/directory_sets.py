"""The statements that bring a staged file of the national directory into its tables, for PostgreSQL 15 and later.

Promises: each statement takes whole sets; what has a later date than the file (``:as_of``) is left as it is; what the
file of the same ``:source`` no longer names gets ``gone_on`` and loses nothing else. Two lines about one entry give
what the first of an order gives that depends on the lines' content alone, so that a file applied twice says the same.

[spec annuaire §3, §5, §7]
"""

# ruff: noqa: S608 - what is put together are texts of this module, never a value
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["AFTER", "BEFORE", "MAILBOXES", "PRACTICES", "SHOWN", "Plan"]

#: A UUID of version 7: the millisecond, then chance. Keys that grow keep the tables' own indexes short.
_NEW_UUID: Final = """CAST(encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
  substring(int8send(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)) FROM 3) FROM 1 FOR 6),
  52, 1), 53, 1), 'hex') AS uuid)"""


@dataclass(frozen=True)
class Plan:
    """How one kind of file is applied.

    Attributes
    ----------
    before
        What the file says, one row an entry.
    guard, guarded
        Entries of the source that are there, and those of them that the file no longer names; what they are called.
    after
        Statements in order, each with whether its rows are those that are gone.
    """

    staged: str
    before: tuple[str, ...]
    guard: str
    guarded: str
    after: tuple[tuple[str, bool], ...]


_PERSONS: Final = """CREATE TEMP TABLE incoming_person ON COMMIT DROP AS
SELECT DISTINCT ON (idnps) idnps, family, COALESCE(given, '') AS given, title, profession, speciality
FROM staged_practice
ORDER BY idnps, speciality_kind IS NOT DISTINCT FROM 'S' DESC, speciality, profession, family, given, title"""

_STRUCTURES: Final = """CREATE TEMP TABLE incoming_structure ON COMMIT DROP AS
SELECT DISTINCT ON (idnst) idnst, structure, street, postal_code, city, phone
FROM staged_practice WHERE idnst IS NOT NULL
ORDER BY idnst, structure, street, postal_code, city, phone"""

_PUT_PERSONS: Final = f"""INSERT INTO practitioner AS kept
  (id, rpps, idnps, family, given, title, profession, speciality, informed, source, as_of, updated_at)
SELECT {_NEW_UUID}, CASE WHEN idnps ~ '^8[0-9]{{11}}$' THEN substr(idnps, 2) END, idnps, family, given, title,
  profession, speciality, true, :source, :as_of, :now
FROM incoming_person
ON CONFLICT (idnps) DO UPDATE SET family = excluded.family, given = excluded.given, title = excluded.title,
  profession = excluded.profession, speciality = excluded.speciality, source = excluded.source, as_of = excluded.as_of,
  gone_on = NULL,
  updated_at = CASE WHEN (kept.family, kept.given, kept.title, kept.speciality, kept.gone_on) IS DISTINCT FROM
    (excluded.family, excluded.given, excluded.title, excluded.speciality, CAST(NULL AS date))
    THEN excluded.updated_at ELSE kept.updated_at END
WHERE kept.as_of <= excluded.as_of"""

_PUT_STRUCTURES: Final = f"""INSERT INTO organisation AS kept
  (id, finess, idnst, name, kind, city, postal_code, address_line, phone, source, as_of)
SELECT {_NEW_UUID}, CASE WHEN idnst LIKE '1%' THEN substr(idnst, 2) END, idnst, structure,
  CASE WHEN idnst LIKE '1%' THEN 'etablissement' ELSE 'cabinet' END, city, postal_code, street, phone, :source, :as_of
FROM incoming_structure
ON CONFLICT (idnst) DO UPDATE SET name = excluded.name, city = COALESCE(excluded.city, kept.city),
  postal_code = COALESCE(excluded.postal_code, kept.postal_code),
  address_line = COALESCE(excluded.address_line, kept.address_line), phone = COALESCE(excluded.phone, kept.phone),
  source = excluded.source, as_of = excluded.as_of, gone_on = NULL
WHERE kept.as_of <= excluded.as_of"""

# A structure that was kept by its FINESS alone gets the national form of it, or the upsert would not find it.
_NAME_STRUCTURES: Final = "UPDATE organisation SET idnst = '1' || finess WHERE idnst IS NULL AND finess IS NOT NULL"

_ROLES: Final = """CREATE TEMP TABLE incoming_role ON COMMIT DROP AS
SELECT who.id AS practitioner_id, place.id AS organisation_id, said.speciality, min(said.profession) AS profession
FROM staged_practice said
JOIN practitioner who ON who.idnps = said.idnps
LEFT JOIN organisation place ON place.idnst = said.idnst
GROUP BY who.id, place.id, said.speciality"""

_PUT_ROLES: Final = f"""INSERT INTO practice_role AS kept
  (id, practitioner_id, organisation_id, speciality, profession, source, as_of)
SELECT {_NEW_UUID}, practitioner_id, organisation_id, speciality, profession, :source, :as_of
FROM (SELECT * FROM incoming_role ORDER BY practitioner_id) AS said
ON CONFLICT (practitioner_id, organisation_id, speciality) DO UPDATE SET profession = excluded.profession,
  source = excluded.source, as_of = excluded.as_of, gone_on = NULL
WHERE kept.as_of <= excluded.as_of"""


def _gone(table: str, named: str) -> str:
    return f"""UPDATE {table} AS kept SET gone_on = :as_of
WHERE kept.source = :source AND kept.gone_on IS NULL AND kept.as_of <= :as_of AND NOT EXISTS ({named})"""


_SAME_ROLE: Final = """SELECT FROM incoming_role said WHERE said.practitioner_id = kept.practitioner_id
  AND said.organisation_id IS NOT DISTINCT FROM kept.organisation_id
  AND said.speciality IS NOT DISTINCT FROM kept.speciality"""

PRACTICES: Final = Plan(
    staged="staged_practice",
    before=(_PERSONS, "ANALYZE incoming_person"),
    guard="""SELECT count(*), count(*) FILTER (WHERE said.idnps IS NULL)
FROM practitioner kept LEFT JOIN incoming_person said ON said.idnps = kept.idnps
WHERE kept.source = :source AND kept.gone_on IS NULL""",
    guarded="personnes",
    after=(
        (_PUT_PERSONS, False),
        ("ANALYZE practitioner", False),
        (_gone("practitioner", "SELECT FROM incoming_person said WHERE said.idnps = kept.idnps"), True),
        (_STRUCTURES, False),
        (_NAME_STRUCTURES, False),
        (_PUT_STRUCTURES, False),
        ("ANALYZE organisation", False),
        (_gone("organisation", "SELECT FROM incoming_structure said WHERE said.idnst = kept.idnst"), True),
        (_ROLES, False),
        ("ANALYZE incoming_role", False),
        (_PUT_ROLES, False),
        ("ANALYZE practice_role", False),
        (_gone("practice_role", _SAME_ROLE), True),
    ),
)

# Whoever has a mailbox but stands in no file of practices yet is a person all the same.
_BOX_PERSONS: Final = f"""INSERT INTO practitioner
  (id, rpps, idnps, family, given, title, profession, speciality, informed, source, as_of, updated_at)
SELECT {_NEW_UUID}, CASE WHEN idnps ~ '^8[0-9]{{11}}$' THEN substr(idnps, 2) END, idnps, family, given, title,
  profession, speciality, true, :source, :as_of, :now
FROM (SELECT DISTINCT ON (idnps) idnps, family, COALESCE(given, '') AS given, title, profession, speciality
  FROM staged_mailbox WHERE idnps IS NOT NULL AND family IS NOT NULL
  ORDER BY idnps, family, given, title, profession, speciality) AS said
WHERE NOT EXISTS (SELECT FROM practitioner kept WHERE kept.idnps = said.idnps)
ON CONFLICT (idnps) DO NOTHING"""

_BOX_STRUCTURES: Final = f"""INSERT INTO organisation (id, finess, idnst, name, kind, postal_code, source, as_of)
SELECT {_NEW_UUID}, CASE WHEN idnst LIKE '1%' THEN substr(idnst, 2) END, idnst, structure,
  CASE WHEN idnst LIKE '1%' THEN 'etablissement' ELSE 'cabinet' END, postal_code, :source, :as_of
FROM (SELECT DISTINCT ON (idnst) idnst, structure, postal_code FROM staged_mailbox WHERE idnst IS NOT NULL
  ORDER BY idnst, structure, postal_code) AS said
WHERE NOT EXISTS (SELECT FROM organisation kept WHERE kept.idnst = said.idnst)
ON CONFLICT (idnst) DO NOTHING"""

# One box a person or, without a person, a structure, whatever lines name it.
_BOXES: Final = """CREATE TEMP TABLE incoming_box ON COMMIT DROP AS
SELECT DISTINCT ON (said.address, who.id, CASE WHEN who.id IS NULL THEN place.id END)
  said.address, said.kind, who.id AS practitioner_id, place.id AS organisation_id,
  CASE lower(said.paperless) WHEN 'o' THEN true WHEN 'oui' THEN true WHEN 'n' THEN false WHEN 'non' THEN false END
    AS paperless
FROM staged_mailbox said
LEFT JOIN practitioner who ON who.idnps = said.idnps AND said.kind IN ('PER', 'CAB')
LEFT JOIN organisation place ON place.idnst = said.idnst
WHERE CASE WHEN said.kind IN ('PER', 'CAB') THEN who.id IS NOT NULL ELSE place.id IS NOT NULL END
ORDER BY said.address, who.id, CASE WHEN who.id IS NULL THEN place.id END, said.kind, place.idnst, said.paperless"""

_PUT_BOX: Final = """INSERT INTO mailbox AS kept
  (id, address, kind, practitioner_id, organisation_id, preferred, confidential, paperless, source, as_of)
SELECT {id}, address, kind, practitioner_id, organisation_id, false, false, paperless, :source, :as_of
FROM (SELECT * FROM incoming_box WHERE practitioner_id IS {owned} NULL
  ORDER BY practitioner_id, organisation_id) AS said
ON CONFLICT {key} DO UPDATE SET kind = excluded.kind, organisation_id = excluded.organisation_id,
  paperless = COALESCE(excluded.paperless, kept.paperless), source = excluded.source, as_of = excluded.as_of,
  gone_on = NULL, unusable_since = CASE WHEN excluded.as_of <= CAST(kept.unusable_since AT TIME ZONE 'UTC' AS date)
    THEN kept.unusable_since END
WHERE kept.as_of <= excluded.as_of"""

_SAME_BOX: Final = """SELECT FROM incoming_box said WHERE said.address = kept.address
  AND said.practitioner_id IS NOT DISTINCT FROM kept.practitioner_id
  AND (kept.practitioner_id IS NOT NULL OR said.organisation_id = kept.organisation_id)"""

MAILBOXES: Final = Plan(
    staged="staged_mailbox",
    before=(
        _BOX_PERSONS,
        _NAME_STRUCTURES,
        _BOX_STRUCTURES,
        "ANALYZE practitioner, organisation",
        _BOXES,
        "ANALYZE incoming_box",
    ),
    guard=f"""SELECT count(*), count(*) FILTER (WHERE NOT EXISTS ({_SAME_BOX}))
FROM mailbox kept WHERE kept.source = :source AND kept.gone_on IS NULL""",
    guarded="boîtes aux lettres",
    after=(
        (_PUT_BOX.format(id=_NEW_UUID, owned="NOT", key="(practitioner_id, address)"), False),
        (
            _PUT_BOX.format(id=_NEW_UUID, owned="", key="(organisation_id, address) WHERE practitioner_id IS NULL"),
            False,
        ),
        ("ANALYZE mailbox", False),
        (_gone("mailbox", _SAME_BOX), True),
    ),
)

_SEEN: Final = {
    "Practitioner": ("practitioner", "fhir_practitioner"),
    "Organisation": ("organisation", "fhir_organization"),
    "PracticeRole": ("practice_role", "fhir_practitionerrole"),
}
#: Roots that FHIR may show.
SHOWN: Final = tuple(_SEEN)
_SAID: Final = "CAST(to_jsonb(kept) - CAST('{as_of,source,updated_at,asked_at,informed,profession}' AS text[]) AS text)"

#: What is shown and says now, before anything changes.
BEFORE: Final = (
    "CREATE TEMP TABLE shown (kind text, id uuid, said text) ON COMMIT DROP",
    *(
        f"""INSERT INTO shown SELECT '{kind}', kept.id, {_SAID} FROM {table} kept WHERE EXISTS (SELECT FROM {seen} seen
  WHERE seen.root_id = kept.id AND seen.root_kind = '{kind}' AND seen.current)"""
        for kind, (table, seen) in _SEEN.items()
    ),
)
#: Roots of a kind that are shown and say something else now.
AFTER: Final = {
    kind: f"""SELECT kept.id FROM shown JOIN {table} kept USING (id)
WHERE shown.kind = '{kind}' AND shown.said <> {_SAID}"""
    for kind, (table, _seen) in _SEEN.items()
}
