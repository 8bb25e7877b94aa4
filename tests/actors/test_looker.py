"""Who only looks, with a session."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ioasid.actors import Session, open_allocator
from ioasid.actors._looker import Looker

pytestmark = pytest.mark.anyio

LOOKS: dict[str, Callable[[Session], Coroutine[Any, Any, object]]] = {
    "statistics": lambda session: session.statistics(),
    "find": lambda session: session.find(1),
    "explain": lambda session: session.explain(1),
    "find_sid": lambda session: session.find_sid(1),
    "find_set": lambda session: session.find_set("vm-1"),
    "list_set": lambda session: session.list_set(0),
    "list_sets": lambda session: session.list_sets(),
    "list_groups": lambda session: session.list_groups(),
    "list_holders": lambda session: session.list_holders(),
}
"""Every way to look, by its name."""


def test_every_way_to_look_is_listed() -> None:
    """The table has all methods of a looker."""
    ways = [name for name, _ in inspect.getmembers(Looker, inspect.iscoroutinefunction)]
    assert sorted(LOOKS) == ways


@pytest.mark.parametrize("name", LOOKS)
async def test_looking_carries_nothing_out(name: str) -> None:
    """The index of the state, which counts what was carried out, stays."""
    async with open_allocator(capacity=8) as session:
        await session.alloc_group("tenant", 4)
        vm = await session.alloc_set("vm-1", 4, group="tenant")
        await session.alloc(vm.sid)
        before = await session.snapshot()
        assert await LOOKS[name](session) is not None
        assert before.index == (await session.snapshot()).index
