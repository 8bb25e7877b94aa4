"""What the tests of the actors share: a defect to plant, a log, a disk, the ports of a session."""

import logging
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from ioasid.core import Allocator, Answer, Request, ReserveCapacity
from tests.actors.ports import PORTS, OpenSession
from tests.journal.disk import Disk, failing_disk


@pytest.fixture(params=PORTS)
def open_session(request: pytest.FixtureRequest) -> OpenSession:
    """Open an allocator and give its first session, by every port there is."""
    return PORTS[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk that can fail."""
    with failing_disk() as found:
        yield found


@pytest.fixture
def broken_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a defect: the core breaks down over a `ReserveCapacity`."""
    handle = Allocator.handle

    def faulty(self: Allocator, session: int, request: Request) -> Answer:
        if isinstance(request, ReserveCapacity):
            raise RuntimeError("planted")
        return handle(self, session, request)

    monkeypatch.setattr(Allocator, "handle", faulty)


class Log(logging.Handler):
    """Collects what is logged, and wakes who waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._event: anyio.Event | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(record.getMessage())
        if self._event is not None:
            self._event.set()

    def seqs(self, holder: str) -> list[int]:
        """The messages that a holder is on the log for, in order."""
        return [
            int(line.split(" message ")[1].split()[0])
            for line in self.lines
            if line.startswith(f"subscriber {holder} ")
        ]

    async def wait_for(self, holder: str, count: int) -> None:
        """Wait until there are so many lines about a holder."""
        while len(self.seqs(holder)) < count:
            self._event = anyio.Event()
            await self._event.wait()


@pytest.fixture
def log() -> Iterator[Log]:
    """What the project logs."""
    handler = Log()
    logger = logging.getLogger("ioasid")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
