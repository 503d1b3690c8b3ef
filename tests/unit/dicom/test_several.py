"""Several pictures for one answer: in order, within bounds that name themselves, and for somebody."""

import asyncio
import contextlib

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from gateway.dicom.held import Held
from gateway.dicom.several import Several
from gateway.errors import InvalidContent, NotFound, Unavailable
from tests.loopback import wait_until


class Room:
    """Draws pictures that are as long as their number says, and waits when it is told to."""

    def __init__(self, count, *, broken=(), refusal=None, slow=()):
        self.begun, self.at_once, self.most_at_once = [], 0, 0
        self.broken, self.refusal, self.slow = broken, refusal or InvalidContent("dicom-pixels", "x"), slow
        self.draw = [self.of(number) for number in range(count)]
        self.gate, self.waits, self.all_begun = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def of(self, number):
        async def draw():
            self.begun.append(number)
            if len(self.begun) == len(self.draw):
                self.all_begun.set()
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await asyncio.sleep(0)
                if number in self.slow:
                    self.waits.set()
                    await self.gate.wait()
                if number in self.broken:
                    raise self.refusal
            finally:
                self.at_once -= 1
            return "image/png", bytes([number]) * number

        return draw


def held(most=1 << 20) -> Held:
    return Held(most, "RCP_LIMIT_RETRIEVAL_BYTES", seconds=0.05)


def request(*, left: asyncio.Event | None = None) -> Request:
    """A request whose client stays, or leaves when it is said."""
    told = []

    async def receive():
        if not told:
            told.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "GET", "path": "/", "headers": []}, receive)


def test_they_are_drawn_side_by_side_and_given_in_order():
    async def story():
        room = Room(6, slow={0})
        several = Several(room.draw, held())
        drawing = asyncio.create_task(several.drawn(request(), at_once=2))
        await room.all_begun.wait()
        room.gate.set()
        await drawing
        assert room.most_at_once == 2
        assert several.contents == [bytes([number]) * number for number in range(6)]
        assert several.refusal is None

    asyncio.run(story())


def test_the_broken_ones_are_left_out():
    async def story():
        several = Several(Room(5, broken={1, 3}).draw, held())
        await several.drawn(request(), at_once=2)
        assert [len(content) for content in several.contents] == [0, 2, 4]
        assert several.refusal.code == "dicom-pixels"
        with pytest.raises(InvalidContent):
            await Several(Room(3, broken={0, 1, 2}).draw, held()).drawn(request(), at_once=2)

    asyncio.run(story())


@pytest.mark.parametrize("refusal", [NotFound("inconnu", "x"), Unavailable("dicom-render-busy", "x")])
def test_what_is_no_fault_of_a_picture_ends_all(refusal):
    async def story():
        room = Room(200, broken={2}, refusal=refusal)
        with pytest.raises(type(refusal)) as raised:
            await Several(room.draw, held()).drawn(request(), at_once=2)
        assert raised.value is refusal
        assert len(room.begun) < 10

    asyncio.run(story())


def test_time_is_bounded_over_all_and_says_so():
    async def story():
        room = Room(20, slow={3})
        with pytest.raises(InvalidContent, match=r"0\.8 s") as raised:
            await Several(room.draw, held(), seconds=0.8).drawn(request(), at_once=1)
        assert (raised.value.code, raised.value.rule) == ("dicom-rendered-time", True)
        assert room.begun == [0, 1, 2, 3]
        assert not room.at_once

    asyncio.run(story())


def test_bytes_are_bounded_over_all_and_say_so():
    async def story():
        room = Room(200)
        with pytest.raises(InvalidContent, match="dépassent 100 octets") as raised:
            await Several(room.draw, held(), most_bytes=100).drawn(request(), at_once=2)
        assert raised.value.code == "dicom-frames"
        assert len(room.begun) < 20

    asyncio.run(story())


def test_what_all_answers_hold_is_bounded():
    async def story():
        shared = held(100)
        one = Several(Room(10).draw, shared)
        await one.drawn(request(), at_once=2)
        assert one.loan.size == sum(range(10))
        room = Room(30)
        with pytest.raises(Unavailable, match="RCP_LIMIT_RETRIEVAL_BYTES") as raised:
            await Several(room.draw, shared).drawn(request(), at_once=2)
        assert raised.value.code == "dicom-retrieval-busy"
        assert len(room.begun) < 20
        one.loan.end()  # it has left
        await Several(Room(10).draw, shared).drawn(request(), at_once=2)

    asyncio.run(story())


def test_nothing_more_is_drawn_for_who_has_left():
    async def story():
        room, left = Room(20, slow={3}), asyncio.Event()
        drawing = asyncio.create_task(Several(room.draw, held()).drawn(request(left=left), at_once=1))
        await room.waits.wait()
        left.set()
        with pytest.raises(Unavailable) as raised:
            await drawing
        assert raised.value.code == "client-left"
        assert room.begun == [0, 1, 2, 3]
        assert not room.at_once

    asyncio.run(story())


def test_a_connection_that_is_closed_ends_the_drawing():
    """By a real server and a real socket."""

    async def story():
        room, ended = Room(20, slow={3}), asyncio.Event()

        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            try:
                await Several(room.draw, held()).drawn(Request(scope, receive), at_once=1)
            except Unavailable:
                ended.set()
            await Response(b"")(scope, receive, send)

        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        assert await asyncio.to_thread(wait_until, lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await room.waits.wait()
        writer.close()
        await asyncio.wait_for(ended.wait(), 10)
        assert room.begun == [0, 1, 2, 3]
        assert not room.at_once
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    asyncio.run(story())
