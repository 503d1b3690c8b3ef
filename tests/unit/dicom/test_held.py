"""Bytes on loan: never more than there are, first come first served, given back however an answer ends."""

import asyncio
import gc

import pytest

from gateway.dicom.held import AT_ONCE_BYTES, Buffers, Flow, Held, Whole
from gateway.errors import InvalidContent, Unavailable


def run(work):
    return asyncio.run(asyncio.wait_for(work, 10))


def test_who_finds_none_left_waits_for_who_came_before():
    async def work():
        held, order = Held(100, "RCP_X"), []
        first = await held.lend(80)

        async def ask(name, size):
            loan = await held.lend(size)
            order.append(name)
            return loan

        waiting = [asyncio.create_task(ask(name, size)) for name, size in (("big", 90), ("small", 10))]
        await asyncio.sleep(0)
        assert order == []  # the small one does not overtake
        first.end()
        first.end()  # twice is once
        loans = await asyncio.gather(*waiting)
        assert order == ["big", "small"]
        for loan in loans:
            loan.end()
        assert (await held.lend(100)).size == 100

    run(work())


def test_what_is_small_does_not_wait_behind_what_is_large():
    async def work():
        mebi = 1 << 20
        held = Held(100 * mebi, "RCP_X", seconds=0.05)
        with pytest.raises(InvalidContent):
            await held.lend(76 * mebi)  # a quarter is for the small ones
        first = await held.lend(75 * mebi)
        waiting = asyncio.create_task(held.lend(10 * mebi))
        await asyncio.sleep(0)
        small = [await held.lend(mebi) for _ in range(25)]
        with pytest.raises(Unavailable):
            await held.lend(mebi)
        with pytest.raises(Unavailable):
            await waiting
        del small
        await asyncio.sleep(0)
        first.end()
        assert held._left == 100 * mebi

    run(work())


def test_who_waits_too_long_is_told_the_limit_and_takes_no_place():
    async def work():
        held = Held(100, "RCP_LIMIT_RETRIEVAL_BYTES", seconds=0.05)
        loan = await held.lend(100)
        with pytest.raises(Unavailable, match="RCP_LIMIT_RETRIEVAL_BYTES") as refusal:
            await held.lend(1)
        assert (refusal.value.code, refusal.value.retry_after_s) == ("dicom-retrieval-busy", 0.05)
        loan.shrink(40)
        assert (await held.lend(60)).size == 60
        with pytest.raises(InvalidContent) as too_large:
            await held.lend(101)
        assert too_large.value.code == "dicom-too-large"
        del loan

    run(work())


def test_what_a_cancelled_request_forgets_comes_back():
    async def work():
        held = Held(100, "RCP_X")
        granted = await held.lend(100)
        waiting = asyncio.create_task(held.lend(100))
        await asyncio.sleep(0)
        granted.end()  # the turn has come, and in the same instant he goes
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        del waiting
        await asyncio.to_thread(gc.collect)
        await asyncio.sleep(0)
        assert (await held.lend(100)).size == 100

    run(work())


async def sent(answer, method="GET", fail_after=99):
    messages = []

    async def send(message):
        if len(messages) >= fail_after:
            raise OSError
        messages.append({**message, "body": bytes(message.get("body", b""))})

    async def receive():
        await asyncio.sleep(60)

    await answer({"type": "http", "method": method, "asgi": {"spec_version": "2.3"}}, receive, send)
    return messages


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_ends_its_loan_after_its_last_byte(method):
    async def work():
        held, content = Held(10 << 20, "RCP_X"), bytes(range(256)) * 10_000
        ended = []
        answer = Whole(content, 200, {}, "x/y", await held.lend(len(content)), lambda: ended.append(held._left))
        messages = await sent(answer, method)
        assert b"".join(one["body"] for one in messages) == (content if method == "GET" else b"")
        assert max(len(one["body"]) for one in messages) <= AT_ONCE_BYTES
        # The last message has no byte of its own: who sends it has waited for those before.
        assert (messages[-1]["body"], messages[-1]["more_body"]) == (b"", False)
        assert ended == [10 << 20]
        assert dict(messages[0]["headers"])[b"content-length"] == str(len(content)).encode()

    run(work())


@pytest.mark.parametrize("kind", [Whole, Flow])
def test_an_answer_that_breaks_off_ends_its_loan(kind):
    async def pieces():
        while True:
            yield b"x" * 1000

    async def work():
        held = Held(1 << 20, "RCP_X")
        content = b"x" * 1000 if kind is Whole else pieces()
        with pytest.raises(BaseException):  # noqa: B017 - whatever the server says of a connection that is gone
            await sent(kind(content, 200, {}, "x/y", await held.lend(1 << 20)), fail_after=1)
        assert held._left == 1 << 20

    run(work())


def test_memory_is_used_again_unless_somebody_still_sends_of_it():
    buffers = Buffers()
    memory, view = buffers.of(1000)
    assert len(view) == 1000
    buffers.back(memory)  # a view of it lives
    other, free = buffers.of(10)
    assert other is not memory
    del free
    buffers.back(other)
    assert buffers.of(5)[0] is other
