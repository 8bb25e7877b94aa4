"""Take the pictures of the live view in docs/pictures/ again: `python -m tests.service.pictures`.

Look at every one of them afterwards, as somebody who sees it for the first time.
"""

import re
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Final

import anyio

from ioasid.actors import Session, Subscription, open_allocator
from ioasid.core import Event, EventKind, Priority
from ioasid.service._top import Top
from ioasid.service._top_rows import Panel
from ioasid.service._top_table import Table

PICTURES: Final = Path(__file__).parents[2] / "docs" / "pictures"
STAGED: Final = frozenset({EventKind.BIND, EventKind.UNBIND, EventKind.FREE})
SETS: Final = (
    ("vm-1", 8, 8, "tenant-a"),
    ("vm-2", 16, 13, "tenant-a"),
    ("vm-3", 64, 22, "tenant-b"),
    ("vm-4", 8, 0, "tenant-b"),
)


async def driver(events: Subscription, hangs_on: frozenset[int]) -> None:
    """A driver that is done with everything at once, but for what it hangs on."""
    async for message in events:
        if not isinstance(message, Event) or message.kind is not EventKind.FREE:
            continue
        if message.ioasid in hangs_on:
            events.defer(message)


async def fill(host: Session, stack: AsyncExitStack) -> None:
    """A host at three in the morning: a device hangs, and one VM's KVM crashed."""
    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    for name, limit in (("tenant-a", 32), ("tenant-b", 128)):
        await host.alloc_group(name, limit)
    for name, priority, hangs_on in (
        ("vdcm:dsa0", Priority.DEVICE, frozenset({2, 3, 9, 10, 25})),
        ("vtd", Priority.IOMMU, frozenset()),
    ):
        session = await stack.enter_async_context(host.session(name))
        events = await stack.enter_async_context(
            session.subscribe(kinds=STAGED, priority=priority, hold=True, acknowledge_within=1)
        )
        tasks.start_soon(driver, events, hangs_on)
    for token, quota, count, group in SETS:
        vm = await host.alloc_set(token, quota, group=group)
        for spid in range(100, 100 + count):
            await host.attach_spid(await host.alloc(vm.sid), spid)
    try:
        async with host.session("kvm:vm-2") as kvm:
            await kvm.get(12)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    for pasid in (2, 3, 9, 12):
        await host.free(pasid)
    await anyio.sleep(2.5)
    for pasid in (10, 25):
        await host.free(pasid)


async def main() -> None:
    """Take all of them."""
    async with open_allocator(holder="host") as host, AsyncExitStack() as stack:
        await fill(host, stack)
        app = Top(lambda: nullcontext(host), lambda: nullcontext(host), every=0.5)
        async with app.run_test(size=(134, 30)) as pilot:
            await anyio.sleep(2)
            save(app, "top")
            app.query_one(f"#{Panel.HOLDERS.name.lower()}", Table).focus()
            await pilot.press("e")
            await pilot.pause()
            save(app, "top-evict")
        app = Top(lambda: nullcontext(host), lambda: nullcontext(host), every=0.5)
        async with app.run_test(size=(80, 24)) as pilot:
            await anyio.sleep(1)
            await pilot.press("w")
            await anyio.sleep(0.2)
            save(app, "top-why")


def save(app: Top, name: str) -> None:
    """Save what is on the screen, without the fonts that a browser would fetch."""
    text = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", app.export_screenshot(), flags=re.DOTALL)
    assert "http" not in text.replace("http://www.w3.org", "")
    (PICTURES / f"{name}.svg").write_text(re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))


if __name__ == "__main__":
    anyio.run(main)
