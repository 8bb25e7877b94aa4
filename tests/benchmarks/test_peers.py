"""The comparison with peers, with peers made here: the real ones need not be installed."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace

import anyio
import pytest

from benchmarks.measure import Figure, Plan
from benchmarks.peers import compare
from benchmarks.peers.peer import Ask, Got, Peer, Publish, allocate, reading
from ioasid.core import Allocator


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    """Answer at once."""

    async def ask(sid: int) -> int:
        await asyncio.sleep(0)
        return allocate(core, sid)

    yield ask


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    """Put into a queue for each receiver."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(groups * size)]

    async def publish(group: int, message: int) -> None:
        for queue in queues[group * size : (group + 1) * size]:
            queue.put_nowait(message)

    async with reading([queue.get for queue in queues], got):
        yield publish


@asynccontextmanager
async def telling_wrongly(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    """Tell everybody something else."""
    async with telling(groups, size, got) as publish:

        async def publish_wrongly(group: int, message: int) -> None:
            await publish(group, message + 1)

        yield publish_wrongly


def asking_in_vain(_core: Allocator) -> AbstractAsyncContextManager[Ask]:
    """Do not run here."""
    raise OSError("no such device")


@pytest.fixture(autouse=True)
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with two peers from here and one that is not installed."""
    for peer in (Peer("good", asking, telling), Peer("bad", asking_in_vain, telling_wrongly)):
        module = SimpleNamespace(PEER=peer)
        monkeypatch.setitem(sys.modules, f"benchmarks.peers.{peer.name}", module)
    monkeypatch.setattr(compare, "MODULES", ("good", "bad", "absent"))


def only(figures: list[Figure]) -> Figure:
    """Return the one figure that there is."""
    (figure,) = figures
    return figure


def test_asks_are_compared_with_peers_that_run() -> None:
    """The figure is our throughput over the fastest peer's; others are named with the reason."""
    figure = only(anyio.run(compare.peer_asks, "asyncio", Plan(1, True, False)))
    assert ("peer_ask_fastest", True, ["ioasid", "good"]) == (
        figure.name,
        figure.at_least,
        list(figure.beside),
    )
    assert "bad: OSError: no such device" in figure.note
    assert "absent: not installed" in figure.note


@pytest.mark.parametrize("measure", [compare.peer_fanout, compare.peer_filtered])
def test_events_are_compared_with_peers_that_deliver(measure: compare.Measure) -> None:
    """A peer that tells its receivers something else has no figure and is named as such."""
    figure = only(anyio.run(measure, "asyncio", Plan(1, True, False)))
    assert ["ioasid", "good"] == [
        each for each in figure.beside if each not in (compare.TOLD, compare.FLOOR)
    ]
    assert "bad: Lost: events told" in figure.note
