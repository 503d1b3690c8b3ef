"""Words as pictures, for what is drawn over images: set by typst in its own fonts, whatever the machine has.

Promises: one transparent PNG a text, as large as the text, its letters opaque; lines break where the text does and
nowhere else; text of users is data, never markup. A character that no such font has is shown as its empty box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import typst

from gateway.errors import Fault

__all__ = ["HEIGHT", "WIDTH", "lettered"]

#: Of every letter and every line, as a share of the size: the font is a typewriter's.
WIDTH: Final = 0.602
HEIGHT: Final = 1.22
_SOURCE: Final = b"""
#set page(width: auto, height: auto, margin: 1pt, fill: none)
#set text(font: ("DejaVu Sans Mono", "Libertinus Serif", "New Computer Modern"), fill: white,
  top-edge: "ascender", bottom-edge: "descender", hyphenate: false)
#set par(leading: 0.05em)
#for (place, one) in json(bytes(sys.inputs.said)).enumerate() {
  if place > 0 { pagebreak() }
  text(size: one.at(0) * 1pt, one.at(1))
}
"""


def lettered(said: Sequence[tuple[int, str]]) -> list[bytes]:
    """Give each text as a picture.

    Parameters
    ----------
    said
        Height of the letters in pixels, and the text; none is empty.
    """
    if not said:
        return []
    data = msgspec.json.encode(said).decode()
    made: object = typst.compile(_SOURCE, format="png", ppi=72, ignore_system_fonts=True, sys_inputs={"said": data})
    pages = [page for page in (made if isinstance(made, list) else [made]) if isinstance(page, bytes)]
    if len(pages) != len(said):
        raise Fault("lettering", "La composition d’un texte n’a rien produit.")
    return pages
