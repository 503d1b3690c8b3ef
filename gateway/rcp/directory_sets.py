"""The statements that bring a staged file of the national directory into its tables, for PostgreSQL 15 and later.

Promises: each statement takes whole sets; what has a later date than the file (``:as_of``) is left as it is, and so is
what the file only repeats: its date is that of the first file that said so; what the file of the same ``:source`` no
longer names gets ``gone_on`` and loses nothing else. Two lines about one entry give
what the first of an order gives that depends on the lines' content alone, so that a file applied twice says the same.

[spec annuaire §3, §5, §7]
"""

# ruff: noqa: S608 - what is put together are texts of this module, never a value
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["AFTER", "BEFORE", "MAILBOXES", "PRACTICES", "SHOWN", "Plan"]

#: A UUID of version 7: the millisecond, then chance. Keys that grow keep the tables' own indexes short; chance is the
#: session's own generator, as the server's strong one would be a tenth of a large import.
_NEW_UUID: Final = """CAST(encode(
  int8send((CAST(date_part('epoch', clock_timestamp()) * 1000 AS bigint) << 16) | 28672
    | CAST(random() * 4095 AS bigint))
  || int8send(CAST('-9223372036854775808' AS bigint) | CAST(random() * 4611686018427387000 AS bigint)),
  'hex') AS uuid)"""


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


_PS: Final = "'annuaire-ps'"
_MSSANTE: Final = "'annuaire-mssante'"
#: The entry is there for this source, and not dated as gone.
_THERE: Final = "kept.source = :source AND kept.gone_on IS NULL"


def _gone(table: str, incoming: str) -> str:
    return f"""UPDATE {table} AS kept SET gone_on = :as_of
WHERE {_THERE} AND kept.as_of <= :as_of AND NOT EXISTS (SELECT FROM {incoming} said WHERE said.kept_id = kept.id)"""


def _guard(table: str, incoming: str) -> str:
    return f"""SELECT count(*), count(*) FILTER (WHERE said.kept_id IS NULL)
FROM {table} kept LEFT JOIN {incoming} said ON said.kept_id = kept.id WHERE {_THERE}"""


# What is incoming knows which entry it is about, and whether it says anything new: a day's file repeats nearly all of
# the day before's, and what it repeats is neither written nor locked.
_PERSONS: Final = f"""CREATE TEMP TABLE incoming_person ON COMMIT DROP AS
SELECT said.*, kept.id AS kept_id,
  (kept.family, kept.given, kept.title, kept.profession, kept.speciality, kept.source, kept.gone_on) IS DISTINCT FROM
  (said.family, said.given, said.title, said.profession, said.speciality, {_PS}, CAST(NULL AS date)) AS is_new
FROM (SELECT DISTINCT ON (idnps) idnps, family, COALESCE(given, '') AS given, title, profession, speciality
  FROM staged_practice
  ORDER BY idnps, speciality_kind IS NOT DISTINCT FROM 'S' DESC, speciality, profession, family, given, title) AS said
LEFT JOIN practitioner kept ON kept.idnps = said.idnps"""

_CHANGE_PERSONS: Final = """UPDATE practitioner AS kept SET family = said.family, given = said.given,
  title = said.title, profession = said.profession, speciality = said.speciality, source = :source, as_of = :as_of,
  gone_on = NULL,
  updated_at = CASE WHEN (kept.family, kept.given, kept.title, kept.speciality, kept.gone_on) IS DISTINCT FROM
    (said.family, said.given, said.title, said.speciality, CAST(NULL AS date)) THEN :now ELSE kept.updated_at END
FROM incoming_person said WHERE said.kept_id = kept.id AND said.is_new AND kept.as_of <= :as_of"""

_ADD_PERSONS: Final = f"""INSERT INTO practitioner
  (id, rpps, idnps, family, given, title, profession, speciality, informed, source, as_of, updated_at)
SELECT {_NEW_UUID}, CASE WHEN idnps ~ '^8[0-9]{{11}}$' THEN substr(idnps, 2) END, idnps, family, given, title,
  profession, speciality, true, :source, :as_of, :now
FROM incoming_person WHERE kept_id IS NULL
ON CONFLICT (idnps) DO NOTHING"""

# A structure that was kept by its FINESS alone gets the national form of it, or it would not be found.
_NAME_STRUCTURES: Final = "UPDATE organisation SET idnst = '1' || finess WHERE idnst IS NULL AND finess IS NOT NULL"

_STRUCTURES: Final = f"""CREATE TEMP TABLE incoming_structure ON COMMIT DROP AS
SELECT said.*, kept.id AS kept_id,
  (kept.name, kept.city, kept.postal_code, kept.address_line, kept.phone, kept.source, kept.gone_on)
  IS DISTINCT FROM
  (said.structure, COALESCE(said.city, kept.city), COALESCE(said.postal_code, kept.postal_code),
   COALESCE(said.street, kept.address_line), COALESCE(said.phone, kept.phone), {_PS}, CAST(NULL AS date)) AS is_new
FROM (SELECT DISTINCT ON (idnst) idnst, structure, street, postal_code, city, phone
  FROM staged_practice WHERE idnst IS NOT NULL
  ORDER BY idnst, structure, street, postal_code, city, phone) AS said
LEFT JOIN organisation kept ON kept.idnst = said.idnst"""

_CHANGE_STRUCTURES: Final = """UPDATE organisation AS kept SET name = said.structure,
  city = COALESCE(said.city, kept.city), postal_code = COALESCE(said.postal_code, kept.postal_code),
  address_line = COALESCE(said.street, kept.address_line), phone = COALESCE(said.phone, kept.phone),
  source = :source, as_of = :as_of, gone_on = NULL
FROM incoming_structure said WHERE said.kept_id = kept.id AND said.is_new AND kept.as_of <= :as_of"""

_ADD_STRUCTURES: Final = f"""INSERT INTO organisation
  (id, finess, idnst, name, kind, city, postal_code, address_line, phone, source, as_of)
SELECT {_NEW_UUID}, CASE WHEN idnst LIKE '1%' THEN substr(idnst, 2) END, idnst, structure,
  CASE WHEN idnst LIKE '1%' THEN 'etablissement' ELSE 'cabinet' END, city, postal_code, street, phone, :source, :as_of
FROM incoming_structure WHERE kept_id IS NULL
ON CONFLICT (idnst) DO NOTHING"""

_ROLES: Final = f"""CREATE TEMP TABLE incoming_role ON COMMIT DROP AS
SELECT said.*, kept.id AS kept_id,
  (kept.profession, kept.source, kept.gone_on) IS DISTINCT FROM (said.profession, {_PS}, CAST(NULL AS date)) AS is_new
FROM (SELECT who.id AS practitioner_id, place.id AS organisation_id, said.speciality, min(said.profession) AS profession
  FROM staged_practice said
  JOIN practitioner who ON who.idnps = said.idnps
  LEFT JOIN organisation place ON place.idnst = said.idnst
  GROUP BY who.id, place.id, said.speciality) AS said
LEFT JOIN practice_role kept ON kept.practitioner_id = said.practitioner_id
  AND kept.organisation_id IS NOT DISTINCT FROM said.organisation_id
  AND kept.speciality IS NOT DISTINCT FROM said.speciality"""

_CHANGE_ROLES: Final = """UPDATE practice_role AS kept SET profession = said.profession, source = :source,
  as_of = :as_of, gone_on = NULL
FROM incoming_role said WHERE said.kept_id = kept.id AND said.is_new AND kept.as_of <= :as_of"""

_ADD_ROLES: Final = f"""INSERT INTO practice_role
  (id, practitioner_id, organisation_id, speciality, profession, source, as_of)
SELECT {_NEW_UUID}, practitioner_id, organisation_id, speciality, profession, :source, :as_of
FROM (SELECT * FROM incoming_role WHERE kept_id IS NULL ORDER BY practitioner_id) AS said
ON CONFLICT (practitioner_id, organisation_id, speciality) DO NOTHING"""

# What is gone is dated before what is new is added: the new is about no entry that `kept_id` could name.
PRACTICES: Final = Plan(
    staged="staged_practice",
    before=(_PERSONS, "ANALYZE incoming_person"),
    guard=_guard("practitioner", "incoming_person"),
    guarded="personnes",
    after=(
        (_CHANGE_PERSONS, False),
        (_gone("practitioner", "incoming_person"), True),
        (_ADD_PERSONS, False),
        ("ANALYZE practitioner", False),
        (_NAME_STRUCTURES, False),
        (_STRUCTURES, False),
        (_CHANGE_STRUCTURES, False),
        (_gone("organisation", "incoming_structure"), True),
        (_ADD_STRUCTURES, False),
        ("ANALYZE organisation", False),
        (_ROLES, False),
        ("ANALYZE incoming_role", False),
        (_CHANGE_ROLES, False),
        (_gone("practice_role", "incoming_role"), True),
        (_ADD_ROLES, False),
        ("ANALYZE practice_role", False),
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

# One box a person or, without a person, a structure, whatever lines name it. What bounced may be usable again.
_BOXES: Final = f"""CREATE TEMP TABLE incoming_box ON COMMIT DROP AS
SELECT said.*, kept.id AS kept_id,
  (kept.kind, kept.organisation_id, kept.paperless, kept.source, kept.gone_on, kept.unusable_since) IS DISTINCT FROM
  (said.kind, said.organisation_id, COALESCE(said.paperless, kept.paperless), {_MSSANTE}, CAST(NULL AS date),
   CAST(NULL AS timestamptz)) AS is_new
FROM (SELECT DISTINCT ON (said.address, who.id, CASE WHEN who.id IS NULL THEN place.id END)
    said.address, said.kind, who.id AS practitioner_id, place.id AS organisation_id,
    CASE lower(said.paperless) WHEN 'o' THEN true WHEN 'oui' THEN true WHEN 'n' THEN false WHEN 'non' THEN false END
      AS paperless
  FROM staged_mailbox said
  LEFT JOIN practitioner who ON who.idnps = said.idnps AND said.kind IN ('PER', 'CAB')
  LEFT JOIN organisation place ON place.idnst = said.idnst
  WHERE CASE WHEN said.kind IN ('PER', 'CAB') THEN who.id IS NOT NULL ELSE place.id IS NOT NULL END
  ORDER BY said.address, who.id, CASE WHEN who.id IS NULL THEN place.id END, said.kind, place.idnst, said.paperless
) AS said
LEFT JOIN mailbox kept ON kept.address = said.address
  AND kept.practitioner_id IS NOT DISTINCT FROM said.practitioner_id
  AND (said.practitioner_id IS NOT NULL OR kept.organisation_id = said.organisation_id)"""

_CHANGE_BOXES: Final = """UPDATE mailbox AS kept SET kind = said.kind, organisation_id = said.organisation_id,
  paperless = COALESCE(said.paperless, kept.paperless), source = :source, as_of = :as_of, gone_on = NULL,
  unusable_since = CASE WHEN :as_of <= CAST(kept.unusable_since AT TIME ZONE 'UTC' AS date)
    THEN kept.unusable_since END
FROM incoming_box said WHERE said.kept_id = kept.id AND said.is_new AND kept.as_of <= :as_of"""

_ADD_BOXES: Final = f"""INSERT INTO mailbox
  (id, address, kind, practitioner_id, organisation_id, preferred, confidential, paperless, source, as_of)
SELECT {_NEW_UUID}, address, kind, practitioner_id, organisation_id, false, false, paperless, :source, :as_of
FROM (SELECT * FROM incoming_box WHERE kept_id IS NULL ORDER BY practitioner_id, organisation_id) AS said
ON CONFLICT DO NOTHING"""

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
    guard=_guard("mailbox", "incoming_box"),
    guarded="boîtes aux lettres",
    after=(
        (_CHANGE_BOXES, False),
        (_gone("mailbox", "incoming_box"), True),
        (_ADD_BOXES, False),
        ("ANALYZE mailbox", False),
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
