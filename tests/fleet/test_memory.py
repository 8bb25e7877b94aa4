"""The store in memory, on every backend; what all stores have in common is in test_store."""

import anyio
import pytest

from ioasid.fleet import Changed, MemoryStore

pytestmark = pytest.mark.anyio


async def test_a_watch_waits_for_what_comes() -> None:
    """Whoever watches is told when something is written, and each by itself."""
    store = MemoryStore()
    seen: list[Changed] = []

    async def watch() -> None:
        async with store.watch("a", 1) as changes:
            async for change in changes:
                seen.append(change)
                if change.value is None:
                    return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        assert 1 == await store.txn({}, {"a": b"1", "b": b"1"})
        await anyio.wait_all_tasks_blocked()
        assert [Changed("a", b"1", 1)] == seen
        assert 2 == await store.txn({}, {"a": None})
    assert [Changed("a", b"1", 1), Changed("a", None, 2)] == seen
