"""A VM asks for all it can get, as fast as it can: what its neighbour notices of that.

python demos/noisy_neighbour.py [--backend asyncio|uvloop|trio] [--record FILE]
"""

import sys
from pathlib import Path

import anyio

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.story import Story, told
from ioasid.actors import Decision, Session, open_allocator
from ioasid.core import Alloc, CapacityExhausted, QuotaExceeded

FLOOD = 200
BATCH = 32


async def tell(story: Story) -> None:
    """Let one VM flood the allocator, and the other ask once."""
    decided: list[str] = []

    def look(seen: Decision) -> None:
        if isinstance(seen.request, Alloc):
            decided.append(seen.holder)

    async with (
        open_allocator(capacity=256, mailbox_size=BATCH, taps=[look]) as host,
        host.session("noisy") as noisy,
        host.session("quiet") as quiet,
    ):
        one = await host.alloc_set("vm-noisy", quota=100)
        two = await host.alloc_set("vm-quiet", quota=100)
        story.part(f"The noisy one has {FLOOD} requests on their way, twice what it may have")
        got: list[int] = []
        refused: list[QuotaExceeded] = []
        async with anyio.create_task_group() as tasks:
            for _ in range(FLOOD):
                tasks.start_soon(ask, noisy, one.sid, got, refused)
            await anyio.lowlevel.checkpoint()
            already = len(decided)
            await quiet.alloc(two.sid)
            before = decided.index("quiet") - already
        story.claim(
            f"the quiet one asked last, and {before} of theirs were decided before its own",
            before <= BATCH,
        )
        story.claim(
            f"the noisy one has its {len(got)} PASIDs; {len(refused)} requests were refused",
            (len(got), len(refused)) == (100, 100),
        )
        story.say(f"What it was told: {refused[0]}")
        story.part("What was promised to the quiet one is still there")
        rest = await quiet.alloc_many(two.sid, 99)
        story.claim("it gets every one of its 100", sum(e.last - e.first + 1 for e in rest) == 99)
        try:
            await host.alloc_set("vm-late", quota=100)
            fits = True
        except CapacityExhausted as error:
            fits = False
            story.say(f"A third VM that does not fit is told so when it starts: {error}")
        story.claim("nobody is promised what others have", not fits)
        story.end()


async def ask(session: Session, sid: int, got: list[int], refused: list[QuotaExceeded]) -> None:
    """Ask for one PASID."""
    try:
        got.append(await session.alloc(sid))
    except QuotaExceeded as error:
        refused.append(error)


if __name__ == "__main__":
    told(tell, __doc__)
