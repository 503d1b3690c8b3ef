"""The demonstration: one dossier, end to end, over the real wires, with people who do not exist; refused in ``prod``.

Reading order: `acts` (the story), `theatre` (what they share), `stage` (the gateway as a process), then each partner:
`ehr`, `pacs`, `letters`, `browser`; the stand-ins `mail_operator` and `psc_standin`; `fixtures` (the people),
`narration` (what is told), `timeline` (the last act), `programme` (who calls all of them).
"""

from __future__ import annotations

__all__ = ["play"]


def play(*, once: bool) -> int:
    """Play the story; 0 when each step was seen to work, 1 when one was not.

    Parameters
    ----------
    once
        Stop after the story; otherwise the gateway stays up for a browser until interrupted.
    """
    from gateway.demo.programme import run

    return run(once=once)
