"""The dossier reference that people read, type and dictate: ``RCP-7K3Q-29``.

It names a dossier and nothing else: five characters drawn at random, and a check character. [spec features 4.1]
28 million references exist; whoever keeps dossiers draws again when one is taken.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Self

from gateway.identifiers.faults import compact
from gateway.identifiers.written import Written

__all__ = ["DossierReference"]

# No 0 and O, no 1 and I, no U beside V; 31 is prime, so that the weighted sum finds every wrong character and every
# exchange of two.
_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTVWXYZ"
_DRAWN = 5
_OFFSET = 1
_FORM = re.compile(rf"RCP-?([{_ALPHABET}]{{4}})-?([{_ALPHABET}]{{2}})")
_IN_TEXT = re.compile(rf"\bRCP-[{_ALPHABET}]{{4}}-[{_ALPHABET}]{{2}}\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DossierReference(Written):
    """An opaque name of a dossier, with a check character; read in any case, with or without hyphens.

    Faults: ``reference-forme``, ``reference-cle``.
    """

    @classmethod
    def new(cls) -> Self:
        """Draw one; nothing of the dossier, of its date or of its patient is in it."""
        return cls._of("".join(secrets.choice(_ALPHABET) for _ in range(_DRAWN)))

    @classmethod
    def from_wire(cls, value: str) -> Self:
        """Read it; name what is wrong."""
        form = _FORM.fullmatch(compact(value))
        if form is None:
            return cls(value.strip(), ("reference-forme",))
        characters = form[1] + form[2]
        expected = cls._of(characters[:_DRAWN])
        read = f"RCP-{characters[:4]}-{characters[4:]}"
        return expected if read == expected.value else cls(read, ("reference-cle",))

    @classmethod
    def found_in(cls, text: str) -> tuple[Self, ...]:
        """Return the references without fault that a text cites, in order, each once: for replies to a mail."""
        read = (cls.from_wire(cited) for cited in _IN_TEXT.findall(text))
        return tuple(dict.fromkeys(reference for reference in read if not reference.faults))

    @classmethod
    def _of(cls, drawn: str) -> Self:
        total = _OFFSET + sum(weight * _ALPHABET.index(character) for weight, character in enumerate(drawn, start=1))
        characters = drawn + _ALPHABET[total % len(_ALPHABET)]
        return cls(f"RCP-{characters[:4]}-{characters[4:]}")
