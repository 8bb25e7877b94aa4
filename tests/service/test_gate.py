"""A gate before the allocator: what it says is the answer, and what was given up is undone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from ioasid.actors import RequestFailed, Session
from ioasid.actors._open import open_driver
from ioasid.actors._port import answered
from ioasid.core import (
    Alloc,
    AllocSet,
    CapacityExhausted,
    OpenSession,
    Request,
    Statistics,
    TakeStatistics,
    TokenType,
)
from ioasid.service import Ask, Gate, Hello, Policy, connect_allocator, serving
from tests.service.services import UID, a_raw_client, listening

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def gated(folder: Path, gate: Gate) -> AsyncIterator[tuple[Session, Session]]:
    """Two sessions with a service that has a gate."""
    path = folder / "s"
    with listening(path) as listener:
        async with (
            open_driver(capacity=10) as driver,
            serving(driver, listener, Policy.only(UID), gate=gate),
            connect_allocator(str(path), holder="one") as one,
            connect_allocator(str(path), holder="two") as two,
        ):
            yield one, two


class Slow:
    """A gate that waits to be told, and then refuses, or lets through."""

    kinds: frozenset[type] = frozenset((AllocSet,))

    def __init__(self) -> None:
        self.came = anyio.Event()
        self.go_on = anyio.Event()
        self.refuses = False

    async def decide(self, request: Request, carry: Callable[[Request], Awaitable[Any]]) -> Any:
        """Wait, and decide."""
        self.came.set()
        await self.go_on.wait()
        if self.refuses:
            raise CapacityExhausted(1, 0)
        return await carry(request)


async def test_what_a_gate_says_is_the_answer(tmp_path: Path) -> None:
    """It refuses, or lets through; what it has no say in does not wait for it."""
    slow: Gate = (gate := Slow())
    async with gated(tmp_path, slow) as (one, two):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.alloc_set, "vm-1", 2)
            await gate.came.wait()
            assert () == (await two.list_sets()).sets
            gate.go_on.set()
        assert ["vm-1"] == [each.token for each in (await two.list_sets()).sets]
        gate.refuses = True
        with pytest.raises(CapacityExhausted):
            await one.alloc_set("vm-2", 2)
        assert 1 == len((await one.list_sets()).sets)


async def test_what_was_given_up_at_a_gate_is_undone(tmp_path: Path) -> None:
    """An anonymous set that nobody learns of does not stay."""
    gate = Slow()
    async with gated(tmp_path, gate) as (one, _):
        async with anyio.create_task_group() as tasks:

            async def make() -> None:
                await one.alloc_set(quota=2, token_type=TokenType.NULL)

            tasks.start_soon(make)
            await gate.came.wait()
            tasks.cancel_scope.cancel()
        gate.go_on.set()
        # In the line behind the undoing.
        assert () == (await one.list_sets()).sets


class Mistaken(Slow):
    """A gate with a mistake in it, which it makes before or behind the allocator."""

    is_late = False

    async def decide(self, request: Request, carry: Callable[[Request], Awaitable[Any]]) -> Any:
        """Fail."""
        if self.is_late:
            await carry(request)
        raise LookupError("planted")


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_mistake_of_a_gate_costs_the_request(
    is_late: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asked is told, the log has where it was, and everybody goes on, who asked as well."""
    gate = Mistaken()
    gate.is_late = is_late
    async with gated(tmp_path, gate) as (one, two):
        for number in range(2):
            with pytest.raises(RequestFailed) as caught:
                await one.alloc_set(f"vm-{number}", 2)
            facts = (caught.value.actor, caught.value.error)
            assert ("the gate of the service", "LookupError") == facts
        assert 2 * is_late == len((await one.list_sets()).sets)
        await two.alloc_group("team", 2)
    assert 2 == caplog.text.count("the gate failed on the request AllocSet, and goes on")
    assert 2 == caplog.text.count("LookupError: planted")
    assert "Traceback" in caplog.text


class Broken(Slow):
    """A gate with a mistake in it: it can't say in what it has a say."""

    @property
    def kinds(self) -> frozenset[type]:  # type: ignore[override]
        """Fail."""
        raise TypeError("kinds")


async def test_a_mistake_costs_the_connection_that_comes_upon_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even while the allocator gives out an answer: it and all others go on."""
    with listening(tmp_path / "s") as listener:
        async with (
            open_driver(capacity=10) as driver,
            serving(driver, listener, Policy.only(UID), gate=Broken()),
        ):
            async with a_raw_client(tmp_path / "s") as client:
                # The second one is taken when the first one is answered.
                await client.send(Hello((1,)), Ask(OpenSession("one"), 1), Ask(Alloc(0), 2))
                while await client.receive() is not None:
                    pass
            assert 0 == answered(await driver.send(TakeStatistics()), Statistics).sessions
    assert "could not be dealt with" in caplog.text
