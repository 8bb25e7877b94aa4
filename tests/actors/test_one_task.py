"""One task enters and leaves what runs tasks of its own."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from ioasid.actors import open_allocator, open_host

OPEN: tuple[Callable[[], AbstractAsyncContextManager[Any]], ...] = (open_allocator, open_host)


@pytest.mark.parametrize("opened", OPEN, ids=["open_allocator", "open_host"])
@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_left_in_another_task(
    opened: Callable[[], AbstractAsyncContextManager[Any]], backend: str
) -> None:
    """Whoever leaves in another task is told what is wrong, and nothing goes on running."""
    name = "open_allocator" if opened is open_allocator else "open_host"

    async def main() -> None:
        manager = opened()
        await asyncio.create_task(_enter(manager))
        with pytest.raises(RuntimeError, match=f"{name} was left in another task") as caught:
            await asyncio.create_task(_leave(manager))
        assert isinstance(caught.value.__cause__, RuntimeError)
        for _ in range(10):
            await asyncio.sleep(0)
        assert {asyncio.current_task()} == asyncio.all_tasks()

    _run(main, backend)


@pytest.mark.parametrize("opened", OPEN, ids=["open_allocator", "open_host"])
@pytest.mark.anyio
async def test_what_fails_in_one_task_is_left_alone(
    opened: Callable[[], AbstractAsyncContextManager[Any]],
) -> None:
    """An exception of the body leaves as it was raised."""
    raised = RuntimeError("mine")
    with pytest.raises(RuntimeError) as caught:
        async with opened():
            raise raised
    assert caught.value is raised


async def _enter(manager: AbstractAsyncContextManager[Any]) -> None:
    await manager.__aenter__()


async def _leave(manager: AbstractAsyncContextManager[Any]) -> None:
    await manager.__aexit__(None, None, None)


def _run(main: Callable[[], Any], backend: str) -> None:
    if backend == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        uvloop.run(main())
    else:
        asyncio.run(main())
