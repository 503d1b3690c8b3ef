"""Pictures kept in memory: bounded, drawn once, and never one for another."""

import asyncio

import pytest

from gateway.dicom import pictures
from gateway.dicom.pictures import Pictures, tag
from gateway.errors import InvalidContent, Unavailable
from tests.loopback import wait_until


class Easel:
    """Draws pictures of a size, counts them, and waits when it is told to."""

    def __init__(self, size=100, refuse=False):
        self.size, self.refuse, self.drawn, self.ended = size, refuse, 0, 0
        self.gate = None

    async def draw(self):
        self.drawn += 1
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.ended += 1
                raise
        if self.refuse:
            raise InvalidContent("dicom-pixels", "Pixels indéchiffrables.")
        return "image/png", bytes(self.size)


def test_what_is_asked_for_again_is_not_drawn_again():
    async def story():
        kept, easel = Pictures(), Easel()
        assert await kept.get("a", easel.draw) == await kept.get("a", easel.draw)
        assert easel.drawn == 1
        await kept.get("b", easel.draw)
        assert easel.drawn == 2

    asyncio.run(story())


def test_bytes_are_bounded_and_the_longest_unasked_goes():
    async def story():
        kept, easel = Pictures(most_bytes=400), Easel(100)
        for name in "abcd":
            await kept.get(name, easel.draw)
        await kept.get("a", easel.draw)
        await kept.get("e", easel.draw)  # b goes
        assert easel.drawn == 5
        await kept.get("a", easel.draw)
        assert easel.drawn == 5
        await kept.get("b", easel.draw)
        assert easel.drawn == 6
        large = Easel(101)
        await kept.get("large", large.draw)
        await kept.get("large", large.draw)
        assert large.drawn == 2  # more than a quarter of all is not kept
        assert kept._held <= 400

    asyncio.run(story())


def test_who_ask_at_once_share_one_drawing_though_the_first_goes_away():
    async def story():
        kept, easel = Pictures(), Easel()
        easel.gate = asyncio.Event()
        asking = [asyncio.create_task(kept.get("a", easel.draw)) for _ in range(5)]
        await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.sleep(0)
        easel.gate.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert easel.drawn == 1
        assert {kind for kind, _ in answers[1:]} == {"image/png"}

    asyncio.run(story())


def test_a_refusal_is_told_to_all_and_not_kept():
    async def story():
        kept, easel = Pictures(), Easel(refuse=True)
        for _ in range(2):
            with pytest.raises(InvalidContent):
                await kept.get("a", easel.draw)
        assert easel.drawn == 2
        easel.refuse = False
        assert await kept.get("a", easel.draw)

    asyncio.run(story())


def test_a_tag_stands_for_one_picture():
    asked = {"frame": 1, "media_type": "image/png", "window": [1.0, 2.0, "LINEAR"]}
    names = {
        tag("0" * 64, sorted(asked.items())),
        tag("1" * 64, sorted(asked.items())),
        tag("0" * 64, sorted({**asked, "frame": 2}.items())),
        tag("0" * 64, sorted({**asked, "window": None}.items())),
    }
    assert len(names) == 4
    assert tag("0" * 64, sorted(asked.items())) in names
    assert all(name[0] == name[-1] == '"' and name[1:-1].isalnum() for name in names)


def test_a_picture_that_nobody_waits_for_any_more_is_not_drawn_to_its_end(monkeypatch):
    monkeypatch.setattr(pictures, "_GRACE_S", 0.3)

    async def story():
        kept, easel = Pictures(), Easel()
        easel.gate = asyncio.Event()
        asking = [asyncio.create_task(kept.get("a", easel.draw)) for _ in range(2)]
        await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.sleep(0.4)
        assert kept.has("a")  # the other waits
        asking[1].cancel()
        await asyncio.wait(asking)
        assert kept.has("a")  # for an instant: who comes back finds it
        again = asyncio.create_task(kept.get("a", easel.draw))
        await asyncio.sleep(0.4)
        assert easel.drawn == 1
        again.cancel()
        assert await asyncio.to_thread(wait_until, lambda: easel.ended and not kept.has("a"))
        assert easel.ended == 1
        easel.gate.set()
        assert await kept.get("a", easel.draw)
        assert easel.drawn == 2

    asyncio.run(story())


def test_a_picture_that_was_begun_is_waited_for_once_it_is_wanted():
    async def story():
        kept, easel = Pictures(most_bytes=100), Easel(100)  # too large to be kept
        begun = kept.begin("a", easel.draw)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await begun.picture())[0] == "image/png"
        assert easel.drawn == 1
        assert kept.kept("a") is None

    asyncio.run(story())


def test_who_comes_in_the_instant_in_which_it_is_given_up_is_told_to_come_back(monkeypatch):
    monkeypatch.setattr(pictures, "_GRACE_S", 0.0)

    async def story():
        kept, easel = Pictures(), Easel()
        easel.gate = asyncio.Event()
        leaving = asyncio.create_task(kept.get("a", easel.draw))
        await asyncio.sleep(0)
        begun = kept.begin("a", easel.draw)  # and does something else before he waits for it
        leaving.cancel()
        await asyncio.sleep(0.2)
        with pytest.raises(Unavailable) as refusal:
            await begun.picture()
        assert (refusal.value.code, refusal.value.retry_after_s) == ("dicom-render-busy", 1)
        waiting = asyncio.create_task(kept.get("b", easel.draw))
        await asyncio.sleep(0)
        waiting.cancel()  # who goes away himself is not told anything
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(story())
