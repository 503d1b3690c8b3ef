"""The texts of the mails: loaded once, checked whole, rendered with cleaned values.

Promises: a template that names an unknown variable, or closes a block it did not open, is refused when it is loaded; a
rendered text has no empty hole (a value that is missing where it would be printed is a fault of ours, never a mail with
a gap); a value cannot bring a line break, a control character or a template mark into a text; a mail that names a
patient is never rendered for an address outside MSSanté (`gateway.rcp.letters.compose`). An operator's own file takes
the place of the project's of the same code; it may print only what that message has, and only where it surely has it,
so that what was loaded can always be sent. Does not choose who gets what (`gateway.rcp.notification`) and
builds no MIME (`gateway.mssante.envelope`).

The files are ``mappings/messages/<code>.txt``: header lines (``Objet``, ``Contient : patient`` or ``rien``, optional
``Variante neutre``), an empty line, the text. ``{{name}}`` prints a value, ``[[si name]] … [[/si]]`` keeps its content
when the value is true or not empty; blocks nest.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gateway.errors import Fault
from gateway.terminology import mappings_dir

__all__ = [
    "VARIABLES",
    "Rendered",
    "Template",
    "Values",
    "clean",
    "load",
    "overlay",
    "parse",
    "template",
    "use",
    "variant_for",
]

Values = Mapping[str, str | bool]

VARIABLES = frozenset(
    {
        "mt.titre",
        "mt.nom",
        "mt.prenom",
        "patient.nom",
        "patient.prenom",
        "patient.ne",
        "patient.date_naissance",
        "rcp.titre",
        "rcp.lieu",
        "rcp.contact",
        "rcp.signature",
        "seance.jour_long",
        "seance.heure",
        "seance.heure_fin",
        "seance.date",
        "seance.note_fuseau",
        "demandeur.titre",
        "demandeur.nom",
        "dest.titre",
        "dest.nom",
        "validateur.titre",
        "validateur.nom",
        "validation.date",
        "validation.heure",
        "version_precedente",
        "quorum_non",
        "remplace",
        "interet",
        "probleme",
        "reponse_mail",
        "webconf",
        "webconf.complement",
        "lien_fiche",
        "lien_cr",
        "lien_plateforme",
        "lien_test",
        "lien_webconf",
        "lien_pas_mon_patient",
        "lien_memo_mt",
        "motif",
        "reference",
        "admin.titre",
        "admin.nom",
        "auteur.titre",
        "auteur.nom",
        "auteur.specialite",
        "auteur.structure",
        "etiquettes",
        "completude",
        "manquants",
        "nb_documents",
        "info_notification",
        "nb_examens",
        "nb_dossiers",
        "urgence",
        "prescripteur.titre",
        "prescripteur.nom",
        "envoi_precedent",
        "ancienne.date",
        "ancien.lien",
        "chg.date",
        "chg.lien",
        "chg.sans_lien",
        "chg.annule",
        "chg.retrait",
    }
)
"""Every name a text may use (spec features 4.1)."""

MAY_BE_EMPTY = frozenset({"seance.note_fuseau"})
"""Printed without a block around it, and yet legitimately nothing."""

_MARK = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}|\[\[\s*(si\s+[^\[\]]*?|/si)\s*\]\]")
_HEADER = re.compile(r"^(Objet|Contient|Variante neutre) : (.+)$")
_STRAY = re.compile(r"\{\{|\}\}|\[\[|\]\]")
_BREAKS = re.compile("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_DOCUMENT = "XDM/1.0/DDM+"
"""How the subject of a mail that carries a document begins, and no other. [ECO.2.1.3]"""
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\ufeff")


@dataclass(frozen=True)
class _Print:
    name: str


@dataclass(frozen=True)
class _Block:
    name: str
    content: tuple[_Node, ...]


_Node = str | _Print | _Block


@dataclass(frozen=True)
class Rendered:
    """A subject and a plain text, both NFC; lines end with LF."""

    subject: str
    body: str


@dataclass(frozen=True)
class Template:
    """One text, already checked.

    Parameters
    ----------
    code
        Its number in the specification, for instance ``M1``.
    names_patient
        Whether the text holds data of a patient, and so stays inside MSSanté.
    neutral
        Code of the text to send instead outside MSSanté, if there is one.
    """

    code: str
    subject: tuple[_Node, ...]
    body: tuple[_Node, ...]
    names_patient: bool
    neutral: str | None

    def render(self, values: Values) -> Rendered:
        """Fill the text.

        Raises
        ------
        Fault
            ``message-value-missing`` when a value that the text prints is absent or empty,
            ``message-value-unknown`` when `values` holds a name that no text may use.
        """
        if unknown := sorted(set(values) - VARIABLES):
            raise Fault("message-value-unknown", f"Le modèle {self.code} ne connaît pas la variable {unknown[0]}.")
        cleaned = {name: value if isinstance(value, bool) else clean(value) for name, value in values.items()}
        body = _expand(self.code, self.body, cleaned)
        body = re.sub(r"\n{3,}", "\n\n", body).strip("\n") + "\n"
        subject = _expand(self.code, self.subject, cleaned)
        return Rendered(unicodedata.normalize("NFC", subject), unicodedata.normalize("NFC", body))


def clean(value: str) -> str:
    """Remove what a value must not bring into a mail: control characters, line breaks, direction marks.

    A run of line breaks becomes one space, so that two words never grow together.
    """
    flat = _BREAKS.sub(" ", value)
    kept = (c for c in flat if c not in _BIDI and unicodedata.category(c) not in {"Cc", "Cs"})
    return unicodedata.normalize("NFC", "".join(kept)).strip()


def _expand(code: str, nodes: tuple[_Node, ...], values: Values) -> str:
    return "".join(_pieces(code, nodes, values))


def _pieces(code: str, nodes: tuple[_Node, ...], values: Values) -> Iterator[str]:
    for node in nodes:
        match node:
            case str():
                yield node
            case _Block(name, content):
                if values.get(name):
                    yield from _pieces(code, content, values)
            case _Print(name):
                value = values.get(name, "")
                if not isinstance(value, str) or (not value and name not in MAY_BE_EMPTY):
                    raise Fault("message-value-missing", f"Le modèle {code} attend une valeur pour {name}.")
                # A note such as " (heure de Paris …)" carries its own leading space, which cleaning took away.
                yield f" {value}" if value and name in MAY_BE_EMPTY else value


def parse(code: str, source: str) -> Template:
    """Read one template file.

    Raises
    ------
    Fault
        ``message-template`` with the reason: unknown variable, unbalanced block, missing header, or a subject that
        would show a patient's data.
    """
    head, separator, body = source.partition("\n\n")
    headers: dict[str, str] = {}
    for line in head.splitlines():
        found = _HEADER.match(line)
        if found is None or found[1] in headers:
            raise Fault("message-template", f"Modèle {code} : ligne d’en-tête incorrecte.")
        headers[found[1]] = found[2].strip()
    if not separator or "Objet" not in headers or headers.get("Contient") not in {"patient", "rien"}:
        raise Fault("message-template", f"Modèle {code} : en-tête incomplet.")
    subject, text = _nodes(code, headers["Objet"]), _nodes(code, body)
    names_patient = headers["Contient"] == "patient"
    if any(name.startswith(("patient.", "probleme")) for name in _names(subject)):
        raise Fault("message-template", f"Modèle {code} : l’objet ne porte aucune donnée du patient.")
    if not names_patient and any(name.startswith(("patient.", "probleme")) for name in _names(text)):
        raise Fault("message-template", f"Modèle {code} : un texte sans patient ne peut pas en nommer un.")
    return Template(code, subject, text, names_patient, headers.get("Variante neutre"))


def _names(nodes: tuple[_Node, ...]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, _Print):
            yield node.name
        elif isinstance(node, _Block):
            yield node.name
            yield from _names(node.content)


def _nodes(code: str, source: str) -> tuple[_Node, ...]:
    stack: list[tuple[str, list[_Node]]] = [("", [])]
    position = 0
    for mark in _MARK.finditer(source):
        _literal(code, stack[-1][1], source[position : mark.start()])
        position = mark.end()
        if mark[1] is not None:
            stack[-1][1].append(_Print(_known(code, mark[1])))
        elif mark[2] == "/si":
            name, content = stack.pop()
            if not stack:
                raise Fault("message-template", f"Modèle {code} : [[/si]] sans bloc ouvert.")
            stack[-1][1].append(_Block(name, tuple(content)))
        else:
            stack.append((_known(code, mark[2].removeprefix("si").strip()), []))
    if len(stack) != 1:
        raise Fault("message-template", f"Modèle {code} : le bloc {stack[-1][0]} n’est pas fermé.")
    _literal(code, stack[0][1], source[position:])
    return tuple(stack[0][1])


def _known(code: str, name: str) -> str:
    if name not in VARIABLES:
        raise Fault("message-template", f"Modèle {code} : variable inconnue « {name} ».")
    return name


def _literal(code: str, nodes: list[_Node], text: str) -> None:
    if _STRAY.search(text):
        raise Fault("message-template", f"Modèle {code} : marque de variable ou de bloc mal formée.")
    if text:
        nodes.append(text)


@cache
def load(directory: Path | None = None) -> Mapping[str, Template]:
    """Read every text of a folder (the project's own by default), once.

    Raises
    ------
    Fault
        ``message-template`` for the first text that is wrong, or whose neutral variant is absent or names a
        patient.
    """
    folder = directory or mappings_dir() / "messages"
    texts = {path.stem: parse(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.txt"))}
    for code, text in texts.items():
        if text.neutral and (text.neutral not in texts or texts[text.neutral].names_patient):
            raise Fault("message-template", f"Modèle {code} : variante neutre {text.neutral} absente ou nominative.")
    return texts


def overlay(directory: Path | None) -> Mapping[str, Template]:
    """Read an operator's texts over the project's.

    Raises
    ------
    Fault
        ``message-template`` with every file that is wrong: unknown code or variable, a variable that this message has
        not or not always, a subject out of its form, a neutral variant that is none.
    """
    texts = dict(load())
    if directory is None:
        return texts
    faults: list[str] = []
    for path in sorted(directory.glob("*.txt")):
        try:
            texts[path.stem] = _own(path.stem, path.read_text(encoding="utf-8"))
        except Fault as fault:
            faults.append(fault.text)
        except (OSError, ValueError):
            faults.append(f"Modèle {path.stem} : fichier illisible.")
    faults += [
        f"Modèle {code} : variante neutre {text.neutral} absente ou nominative."
        for code, text in texts.items()
        if text.neutral and (text.neutral not in texts or texts[text.neutral].names_patient)
    ]
    if faults:
        raise Fault("message-template", " ".join(faults))
    return texts


def _own(code: str, source: str) -> Template:
    """Read an operator's text: it may say otherwise what the project's says, not more than that one knows."""
    usual = load().get(code)
    if usual is None:
        raise Fault("message-template", f"Modèle {code} : aucun message ne porte ce code.")
    found = parse(code, source)
    prefix = _start(usual.subject).startswith(_DOCUMENT)
    if _start(found.subject).startswith(_DOCUMENT) != prefix:
        raise Fault(
            "message-template", f"Modèle {code} : l’objet d’un envoi de document, et lui seul, dit {_DOCUMENT}…"
        )
    known: dict[str, list[frozenset[str]]] = {}
    for name, blocks in (*_printed(usual.subject), *_printed(usual.body)):
        known.setdefault(name, []).append(blocks)
    tested = set(_names(usual.body)) | set(_names(usual.subject))
    for name in (*_names(found.subject), *_names(found.body)):
        if name not in tested:
            raise Fault("message-template", f"Modèle {code} : ce message n’a pas de valeur pour « {name} ».")
    for name, blocks in (*_printed(found.subject), *_printed(found.body)):
        if name not in blocks and not any(needed <= blocks for needed in known.get(name, ())):
            text = f"Modèle {code} : « {name} » peut manquer et se place dans un bloc [[si {name}]]."
            raise Fault("message-template", text)
    return found


def _start(nodes: tuple[_Node, ...]) -> str:
    return nodes[0] if nodes and isinstance(nodes[0], str) else ""


def _printed(nodes: tuple[_Node, ...], blocks: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    """Give each value that is printed, with the blocks around it."""
    for node in nodes:
        match node:
            case _Print(name):
                yield name, blocks
            case _Block(name, content):
                yield from _printed(content, blocks | {name})
            case _:
                continue


class _InUse:
    """The texts of this process: the project's until an operator's are set at its start."""

    texts: Mapping[str, Template] | None = None


def use(directory: Path | None) -> None:
    """Let this process send an operator's texts over the project's.

    Raises
    ------
    Fault
        As `overlay`; the texts in use stay.
    """
    _InUse.texts = overlay(directory)


def template(code: str) -> Template:
    """Return the text of that code that is in use."""
    found = (_InUse.texts or load()).get(code)
    if found is None:
        raise Fault("message-template", f"Aucun modèle de message {code}.")
    return found


def variant_for(code: str, *, inside_mssante: bool) -> Template | None:
    """Return the text that may go to an address, or None when nothing may.

    A text that names a patient goes only inside MSSanté; elsewhere its neutral variant goes, or nothing.
    """
    chosen = template(code)
    if inside_mssante or not chosen.names_patient:
        return chosen
    return template(chosen.neutral) if chosen.neutral else None
