"""Scrapes: what of HTTP is answered, and how little a client can do that asks for nothing."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

from ioasid.core import AllocatorClosed
from ioasid.service import _scrapes
from ioasid.service._scrapes import CONNECTIONS, REQUEST, serving_metrics
from tests.service.services import listening

pytestmark = pytest.mark.anyio

BODY = b"ioasid_capacity 9.0\n"


async def collect() -> bytes:
    """What there is to serve."""
    return BODY


@asynccontextmanager
async def served(folder: Path, collect: object = collect) -> AsyncIterator[Path]:
    """Serve metrics; gives the path of the socket."""
    path = folder / "m"
    with listening(path) as listener:
        async with anyio.create_task_group() as tasks:
            async with serving_metrics(listener, collect, tasks):  # type: ignore[arg-type]
                yield path
            tasks.cancel_scope.cancel()


async def rest_of(stream: SocketStream) -> bytes:
    """All that comes until the end of a connection."""
    found = b""
    try:
        async for data in stream:
            found += data
    except anyio.BrokenResourceError:
        # It was cut off.
        pass
    return found


async def say(path: Path, *pieces: bytes) -> bytes:
    """Send pieces, and return all that comes until the end."""
    async with await anyio.connect_unix(path) as stream:
        for each in pieces:
            await stream.send(each)
        return await rest_of(stream)


HOST = "\r\nHost: x\r\n\r\n"
ASKED = {
    f"GET /metrics HTTP/1.1{HOST}": 200,
    f"HEAD /metrics HTTP/1.1{HOST}": 200,
    f"GET /metrics?name=x HTTP/1.1{HOST}": 200,
    f"GET http://localhost/metrics HTTP/1.1{HOST}": 200,
    f"GET /metrics HTTP/1.1\r\nUser-Agent: a b\r\nhOST: x\r\nAccept:\r\nX: \xff{HOST[7:]}": 200,
    "GET /metrics HTTP/1.0\r\n\r\n": 200,
    f"GET / HTTP/1.1{HOST}": 404,
    f"GET /metrics/ HTTP/1.1{HOST}": 404,
    f"GET /metricsx HTTP/1.1{HOST}": 404,
    f"POST /nothing HTTP/1.1{HOST}": 404,
    f"POST /metrics HTTP/1.1{HOST}": 405,
    f"OPTIONS /metrics HTTP/1.1{HOST}": 405,
    f"get /metrics HTTP/1.1{HOST}": 405,
    "GET /metrics HTTP/1.1\r\n\r\n": 400,
    f"GET /metrics HTTP/1.1\r\nHost: y{HOST}": 400,
    f"GET /metrics HTTP/1.1\r\nno field{HOST}": 400,
    f"GET /metrics HTTP/1.1\r\n folded: x{HOST}": 400,
    f"GET /metrics HTTP/2.0{HOST}": 505,
    f"GET /metrics{HOST}": 400,
    f"GET  /metrics HTTP/1.1{HOST}": 400,
    f"GET /met rics HTTP/1.1{HOST}": 400,
    f"GET http://[/metrics HTTP/1.1{HOST}": 400,
    "\r\n\r\n": 400,
    "\x00\x01\r\n\r\n": 400,
}


@pytest.mark.parametrize("request_text", ASKED, ids=ascii)
async def test_requests(request_text: str, tmp_path: Path) -> None:
    """Each has its status, a body of the length that is said, and ends its connection."""
    async with served(tmp_path) as path:
        head, _, body = (await say(path, request_text.encode("latin-1"))).partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        status = ASKED[request_text]
        assert ["HTTP/1.1", str(status)] == line.split()[:2]
        found = dict(each.split(": ") for each in fields)
        assert "close" == found["Connection"]
        assert ("GET, HEAD" if status == 405 else None) == found.get("Allow")
        kind = "text/plain; version=0.0.4; charset=utf-8"
        assert (kind == found["Content-Type"]) is (status == 200)
        if request_text.startswith("HEAD"):
            assert (b"", len(BODY)) == (body, int(found["Content-Length"]))
        else:
            assert len(body) == int(found["Content-Length"])
            assert (body == BODY) is (status == 200)


async def test_how_the_bytes_are_cut_makes_no_difference(tmp_path: Path) -> None:
    """A request may come byte by byte, and with more behind it, which is another's."""
    text = f"GET /metrics HTTP/1.1{HOST}".encode()
    async with served(tmp_path) as path:
        whole = await say(path, text)
        assert whole.endswith(BODY)
        assert whole == await say(path, *(text[at : at + 1] for at in range(len(text))))


async def test_a_request_without_end(tmp_path: Path) -> None:
    """Beyond a bound nothing is kept, and it is refused."""
    async with served(tmp_path) as path:
        found = await say(path, b"GET /metrics HTTP/1.1\r\nX: ".ljust(REQUEST + 1, b"x"))
        assert found.startswith(b"HTTP/1.1 431 ")


async def test_who_says_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As is who begins and does not go on, and who does not take the answer; others are served."""
    large = b"x" * (1 << 24)

    async def collect() -> bytes:
        return large

    monkeypatch.setattr(_scrapes, "WITHIN", 0.5)
    text = f"GET /metrics HTTP/1.1{HOST}".encode()
    async with served(tmp_path, collect) as path:
        async with (
            await anyio.connect_unix(path) as silent,
            await anyio.connect_unix(path) as slow,
            await anyio.connect_unix(path) as deaf,
        ):
            await slow.send(text[:9])
            await deaf.send(text)
            with anyio.fail_after(60):
                assert b"" == await rest_of(silent)
                assert b"" == await rest_of(slow)
                assert len(large) > len(await rest_of(deaf))
        monkeypatch.setattr(_scrapes, "WITHIN", 60)
        assert len(large) < len(await say(path, text))


async def test_there_are_so_many_connections(tmp_path: Path) -> None:
    """One more is refused at once; when another ends, the next one is answered."""
    text = f"GET /metrics HTTP/1.1{HOST}".encode()
    async with served(tmp_path) as path:
        streams = [await anyio.connect_unix(path) for _ in range(CONNECTIONS)]
        for each in streams:
            await each.send(text[:9])
        await anyio.wait_all_tasks_blocked()
        assert b"HTTP/1.1 503 " == (await say(path))[:13]
        await streams[0].send(text[9:])
        assert (await rest_of(streams[0])).endswith(BODY)
        await anyio.wait_all_tasks_blocked()
        assert (await say(path, text)).endswith(BODY)
        for each in streams:
            await each.aclose()


async def test_what_can_not_be_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and the next one is served all the same."""
    failures: list[Exception] = [AllocatorClosed("it ended"), RuntimeError("a bug")]

    async def collect() -> bytes:
        raise failures.pop(0)

    text = f"GET /metrics HTTP/1.1{HOST}".encode()
    caplog.set_level(logging.ERROR, "ioasid.service")
    async with served(tmp_path, collect) as path:
        found = await say(path, text)
        assert (True, True) == (found.startswith(b"HTTP/1.1 503 "), b"ESHUTDOWN" in found)
        assert not caplog.records
        assert (await say(path, text)).startswith(b"HTTP/1.1 500 ")
        assert ["the metrics could not be taken"] == [each.message for each in caplog.records]
