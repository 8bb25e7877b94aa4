"""What an ask over a socket costs: the service against a bare echo of frames as large.

Both are processes of their own, and the client is the same: it writes the frames that a client in
any language would, and looks at the answers.
"""

import asyncio
import re
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Final

from attrs import frozen

from benchmarks.calls import floor
from benchmarks.durable import folder
from benchmarks.measure import Figure, Lost, Pass, Plan, compare, figure, take_turns
from ioasid.core import Alloc, Allocated, AllocSet, ListHolders, OpenSession, Subscribe
from ioasid.service import Answered, Ask, ClientConnection, Hello

ECHO: Final = """
import asyncio, sys
import anyio
from ioasid.core import Allocated
from ioasid.service import Answered, ServerConnection

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.left = transport, b""
    def data_received(self, data):
        data = self.left + data
        at = count = 0
        while len(data) - at >= 4 and len(data) - at >= (size := 4 + int.from_bytes(data[at:at + 4], "big")):
            at += size
            count += 1
        self.left = data[at:]
        self.transport.write(ANSWER * count)

ANSWER = ServerConnection().pack(Answered(1000, Allocated(1000, 1000)))

async def main():
    server = await asyncio.get_running_loop().create_unix_server(Echo, sys.argv[1], backlog=1024)
    await server.serve_forever()

anyio.run(main, backend_options={"use_uvloop": sys.argv[2] == "uvloop"})
"""  # noqa: E501 - it is a program
SERVICE: Final = """
import sys
import anyio
from ioasid.service import Config, serve
path, loop, journal = sys.argv[1:]
config = Config(socket=path, capacity=2**32 - 1, journal=journal or None)
anyio.run(serve, config, backend_options={"use_uvloop": loop == "uvloop"})
"""
FLOORS: Final = 42
"""How many times `core_floor` an ask may cost, whatever an echo does: 60,000 asks a second where
that takes 0.4 us.
"""
LOOPS: Final = 20_000
"""How often it is taken for one time of it."""
CROWD: Final = 1000
STOPPED: Final = 10
CONNECTS: Final = 10_000


class Client(asyncio.Protocol):
    """Sends an ask when the answer to the last one is there."""

    def __init__(self) -> None:
        self.connection = ClientConnection()
        self.transport: asyncio.Transport
        self.number = 0
        self.left = 0
        self.sid = 0
        self.session = 1
        self.done: asyncio.Future[None] | None = None
        self.last: object = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        for frame in self.connection.receive(data):
            if not self.number:
                # It was welcomed; an echo has one answer for everything.
                self.left = 1
            elif type(frame) is not Answered:
                continue
            else:
                self.last = frame.answer
            self.left -= 1
            if self.left > 0:
                self.ask(Alloc(self.sid))
            elif self.done is not None and not self.done.done():
                self.done.set_result(None)

    def ask(self, request: Alloc | AllocSet | ListHolders | OpenSession | Subscribe) -> None:
        self.number += 1
        session = None if type(request) is OpenSession else self.session
        self.transport.write(self.connection.pack(Ask(request, self.number, session)))

    async def hello(self) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(self.connection.pack(Hello((1,))))
        await self.done

    def stop(self) -> None:
        """Ask for much, and read nothing of it."""
        self.transport.pause_reading()
        for _ in range(100):
            self.ask(ListHolders())

    async def answer(self, request: Alloc | AllocSet | OpenSession | Subscribe) -> object:
        self.left, self.done = 1, asyncio.get_running_loop().create_future()
        self.ask(request)
        await self.done
        return self.last


async def socket_sequential(backend: str, plan: Plan) -> list[Figure]:
    """Compare one connection that asks in sequence with the same at an echo."""
    times = await _against_echo(backend, plan, 1, plan.scaled(3000, 300))
    return [_over_echo(times, "socket_sequential", backend, 2.0)]


async def socket_concurrent(backend: str, plan: Plan) -> list[Figure]:
    """Compare 100 connections that ask at once with the same at an echo."""
    times = await _against_echo(backend, plan, 100, plan.scaled(100, 10))
    enough = max(1 / 0.7, FLOORS * median(times["core_floor"]) / median(times["echo"]))
    return [_over_echo(times, "socket_concurrent", backend, enough)]


async def socket_stopped_reader(backend: str, plan: Plan) -> list[Figure]:
    """Compare the slowest asks beside clients that stopped reading with those without them."""
    count = plan.scaled(2000, 300)
    with a_program(SERVICE, backend, "") as service, a_program(SERVICE, backend, "") as alone:
        async with (
            connections(service.path, 1) as (one,),
            connections(alone.path, 1) as (other,),
            connections(service.path, STOPPED, "stopped") as stopped,
        ):
            for each in stopped:
                await each.answer(Subscribe(queue_size=1000))
                each.stop()
            contenders: dict[str, Pass] = {
                "p99 beside them": lambda: percentile(one, count),
                "p99 without": lambda: percentile(other, count),
            }
            times = await take_turns(contenders, plan)
    return [
        compare(
            times,
            "p99 beside them",
            "p99 without",
            name="socket_stopped_reader",
            backend=backend,
            unit="x without",
            target=None,
        )
    ]


async def percentile(client: Client, count: int) -> float:
    """Ask so often in sequence; returns the seconds that one in a hundred takes longer than."""
    took = []
    for _ in range(count):
        began = perf_counter()
        await client.answer(Alloc(client.sid))
        took.append(perf_counter() - began)
    if not isinstance(client.last, Allocated):
        raise Lost(f"an answer is {client.last}")
    return quantiles(took, n=100)[98]


async def _against_echo(
    backend: str, plan: Plan, clients: int, asks: int
) -> dict[str, list[float]]:
    with (
        a_program(ECHO, backend) as echo,
        a_program(SERVICE, backend, "") as service,
        folder() as kept,
        a_program(SERVICE, backend, str(kept / "journal")) as durable,
        ProcessPoolExecutor(1, get_context("spawn")) as other,
    ):
        async with (
            connections(echo.path, clients) as at_echo,
            connections(service.path, clients) as ours,
            connections(durable.path, clients) as ours_kept,
        ):
            contenders: dict[str, Pass] = {
                "service": lambda: rounds(ours, asks),
                "with a journal": lambda: rounds(ours_kept, asks),
                "echo": lambda: rounds(at_echo, asks),
                "core_floor": lambda: _core_floor(other),
            }
            return await take_turns(contenders, plan)


async def _core_floor(other: Executor) -> float:
    # In two processes at once, as client and server are: two processors may be one that is shared.
    there = other.submit(floor, LOOPS)
    seconds = floor(LOOPS)
    return (seconds + there.result()) / 2 / LOOPS


def _over_echo(times: dict[str, list[float]], name: str, backend: str, target: float) -> Figure:
    return compare(
        times, "service", "echo", name=name, backend=backend, unit="x echo", target=target
    )


async def socket_memory(backend: str, plan: Plan) -> list[Figure]:
    """Measure what the service holds for an idle connection, and serve many at once."""
    idle: list[float] = []
    connects: list[float] = []
    times: dict[str, list[float]] = {"a crowd": [], "ten of it": []}
    with room_for(CROWD):
        for _ in range(min(plan.repeats, 3)):
            # Another one each time, for what is let go of stays with the process.
            with a_program(SERVICE, backend, "") as service:
                async with connections(service.path, 100, "first"):
                    pass
                await settled(service.path, "before")
                before = service.memory()
                async with connections(service.path, CROWD) as crowd:
                    idle.append((service.memory() - before) / CROWD / 1024)
                    times["a crowd"].append(await rounds(crowd, plan.scaled(10, 2)))
                    times["ten of it"].append(await rounds(crowd[:10], plan.scaled(1000, 200)))
                connects.append(await connecting(service.path, plan.scaled(CONNECTS, 1000)))
    return [
        figure(
            idle,
            name="socket_memory",
            backend=backend,
            unit="KiB an idle connection",
            target=20.0,
        ),
        compare(
            times,
            "a crowd",
            "ten of it",
            name="socket_crowd",
            backend=backend,
            unit="x an ask of ten connections",
            target=None,
        ),
        figure(
            [each * 1e6 for each in connects],
            name="socket_connects",
            backend=backend,
            unit="µs a connection that comes and goes",
            target=None,
        ),
    ]


async def connecting(path: str, count: int) -> float:
    """Connect and go so often, and ask when all are gone; returns the seconds that one took."""
    began = perf_counter()
    for number in range(count):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            while True:
                try:
                    sock.connect(path)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await settled(path, "after")
    return (perf_counter() - began) / count


async def settled(path: str, name: str) -> None:
    """Wait until a server has dealt with all that came before."""
    async with connections(path, 1, name):
        pass


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Let this process have so many descriptors more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < count + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 100), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@frozen
class Running:
    """A program that serves a socket."""

    path: str
    pid: int

    def memory(self) -> int:
        """Return the bytes that it holds."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text("ascii")
        return sum(int(n) for n in re.findall(r"Private_\w+: +(\d+) kB", text)) * 1024


@contextmanager
def a_program(text: str, *arguments: str) -> Iterator[Running]:
    """Run a program that serves a socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "s"))
        with subprocess.Popen([sys.executable, "-c", text, path, *arguments]) as process:
            try:
                yield Running(path, process.pid)
            finally:
                process.terminate()


@asynccontextmanager
async def connections(path: str, count: int, name: str = "client") -> AsyncIterator[list[Client]]:
    """Connect, with a session and a set each."""
    loop = asyncio.get_running_loop()
    clients = []
    for number in range(count):
        for _ in range(1000):
            try:
                _, client = await loop.create_unix_connection(Client, path)
                break
            except (ConnectionRefusedError, FileNotFoundError, BlockingIOError):
                await asyncio.sleep(0.01)
        else:
            raise Lost("nobody listens")
        clients.append(client)
        await client.hello()
        opened = await client.answer(OpenSession(f"{name}-{number}"))
        client.session = getattr(opened, "session", 1)
        owner = await client.answer(AllocSet(f"{name}-vm-{number}", 1 << 20))
        client.sid = getattr(owner, "sid", 0)
    try:
        yield clients
    finally:
        for client in clients:
            client.transport.close()


async def rounds(clients: list[Client], asks: int) -> float:
    """Ask so often on every connection; returns the seconds that one ask took."""
    loop = asyncio.get_running_loop()
    began = perf_counter()
    for client in clients:
        client.left, client.done = asks, loop.create_future()
        client.ask(Alloc(client.sid))
    for client in clients:
        assert client.done is not None
        await client.done
    seconds = perf_counter() - began
    if not all(isinstance(client.last, Allocated) for client in clients):
        raise Lost(f"an answer is {clients[0].last}")
    return seconds / (asks * len(clients))
