"""The metadata of a document as the French volet writes them: their names, and which of them go together.

Promises: data only. The matrix is the published one; `rule_of` gives nothing for what is outside it, and what that
means is the caller's (`gateway.hl7v2.translate`: a remark, or in strict mode a refusal).

Sources: [CI-SIS Transmission de CDA], spec mssante 3.3, 3.4, 3.9, 3.11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["ALIASES", "ANY", "FLAGS", "MAILS", "MATRIX", "rule_of"]

#: Flags that a profile demands, in its order.
FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "T": (
        "MASQUE_PS",
        "INVISIBLE_PATIENT",
        "INVISIBLE_REP_LEGAUX",
        "CONNEXION_SECRETE",
        "MODIF_CONF_CODE",
        "DESTDMP",
        "DESTMSSANTEPS",
        "DESTMSSANTEPAT",
        "ACK_RECEPTION",
        "ACK_LECTURE_MSS",
    ),
    "L": ("MASQUE_PS", "INVISIBLE_PATIENT", "INVISIBLE_REP_LEGAUX", "MODIF_CONF_CODE"),
}

#: Texts for a mail, which are no document.
MAILS: Final = frozenset({"CORPSMAIL_PS", "CORPSMAIL_PATIENT"})

#: Names that official examples give instead; spaces inside a name are gone before.
ALIASES: Final[Mapping[str, str]] = {"ACK_LECTURE": "ACK_LECTURE_MSS"}

ANY: Final = None
#: Rule → what eight of the flags are, in the order of `FLAGS`.
MATRIX: Final[Mapping[str, tuple[bool | None, ...]]] = {
    "M1": (False, False, False, ANY, ANY, ANY, True, True),
    "M2": (False, True, False, ANY, ANY, ANY, True, False),
    "M3": (ANY, False, ANY, False, ANY, False, False, True),
}


def rule_of(flags: Mapping[str, bool]) -> str | None:
    """Name the rule that flags follow; an absent flag is N."""
    said = [flags.get(name, False) for name in FLAGS["T"][:8]]
    for rule, wanted in MATRIX.items():
        if all(want is ANY or want is have for want, have in zip(wanted, said, strict=True)):
            return rule
    return None
