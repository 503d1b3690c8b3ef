"""The pages that anyone may read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.portal.views.shared import Badge, Choice, Page, Slot

__all__ = [
    "Accessibility",
    "Browsers",
    "Error",
    "Help",
    "Home",
    "MemberMemo",
    "PhysicianMemo",
    "Rcp",
    "RcpCard",
    "Rcps",
    "SelfTest",
    "SignIn",
    "TestCheck",
]


@dataclass(frozen=True)
class RcpCard:
    """One recurring meeting in a public list."""

    title: str
    level: str
    url: str
    organ: str = ""
    organiser: str = ""
    place: str = ""
    next_start: datetime | None = None


@dataclass(frozen=True)
class Home(Page):
    """`/`: the public list of meetings, without any patient datum (E1)."""

    template = "home.html"
    title = "Réunions de concertation pluridisciplinaire"
    rcps: tuple[RcpCard, ...] = ()
    search: str = ""


@dataclass(frozen=True)
class Rcps(Page):
    """`/rcp`: the directory of meetings (E11 reduced)."""

    template = "rcps.html"
    title = "Annuaire des RCP"
    rcps: tuple[RcpCard, ...] = ()
    search: str = ""
    levels: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Rcp(Page):
    """`/rcp/{id}`: one meeting and its coming sessions; still without patient data."""

    template = "rcp.html"
    title = "RCP"
    card: RcpCard = field(kw_only=True)
    contact: str = ""
    quorum_rule: str = ""
    notification: str = ""
    sessions: tuple[Slot, ...] = ()
    settings_url: str = ""

    def heading(self) -> str:
        """Return the meeting's own title."""
        return self.card.title


@dataclass(frozen=True)
class SignIn(Page):
    """`/connexion` (E2): Pro Santé Connect is the only way in."""

    template = "sign_in.html"
    title = "Connexion"
    psc_url: str = "/psc/connexion"
    problem: str = ""


@dataclass(frozen=True)
class Help(Page):
    """`/aide` (E32)."""

    template = "help.html"
    title = "Aide"


@dataclass(frozen=True)
class PhysicianMemo(Page):
    """`/aide/medecin-traitant`."""

    template = "help_physician.html"
    title = "Mémo du médecin traitant"


@dataclass(frozen=True)
class MemberMemo(Page):
    """`/aide/medecin-rcp`."""

    template = "help_member.html"
    title = "Mémo du médecin de RCP"


@dataclass(frozen=True)
class Accessibility(Page):
    """`/aide/accessibilite`."""

    template = "help_accessibility.html"
    title = "Déclaration d’accessibilité"


@dataclass(frozen=True)
class Browsers(Page):
    """`/aide/navigateurs`."""

    template = "help_browsers.html"
    title = "Navigateurs compatibles"
    minimum: tuple[tuple[str, str], ...] = ()
    yours: str = ""


@dataclass(frozen=True)
class TestCheck:
    """One line of the self-test."""

    label: str
    badge: Badge
    advice: str = ""


@dataclass(frozen=True)
class SelfTest(Page):
    """`/aide/test`: what the server can tell of the reader's workstation, without script."""

    template = "help_test.html"
    title = "Tester mon poste"
    checks: tuple[TestCheck, ...] = ()
    done: bool = False


@dataclass(frozen=True)
class Error(Page):
    """Any refusal, in words."""

    template = "error.html"
    title = "Erreur"
    status: int = 500
    headline: str = ""
    text: str = ""
    reference: str = ""

    def heading(self) -> str:
        """Return the headline."""
        return self.headline
