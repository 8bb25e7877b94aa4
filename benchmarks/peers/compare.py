"""Asks and events, compared with those of other actor and publish-subscribe libraries."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import import_module
from statistics import median
from typing import Final, TypeAlias

from anyio import fail_after, wait_all_tasks_blocked

from benchmarks.asks import CAPACITY, Client, new_core, pass_of, through_session
from benchmarks.audience import Audience
from benchmarks.crowds import SUBSCRIBERS, TARGETS, open_crowd
from benchmarks.fanout import ALLOC, Show, Told, nothing, open_audience, open_floor
from benchmarks.measure import PATIENCE, Figure, Pass, Plan, compare, take_turns
from benchmarks.peers.peer import Ask, Peer, allocate
from ioasid.actors import open_allocator
from ioasid.core import EventKind, Priority

OURS: Final = "ioasid"
TOLD: Final = "ioasid until told"
"""Until the last subscriber has the event, acknowledgements not decided; only shown."""
FLOOR: Final = "floor"
"""Appending to as many deques and waking as many tasks; only shown."""
MODULES: Final = (
    "mindmesh",
    "domo_actors",
    "papyra",
    "tapio",
    "xoscar",
    "pykka",
    "thespian",
    "ray",
    "broadcaster",
    "aiopubsub",
    "blinker",
    "psygnal",
)
"""The modules beside this one, each with a `PEER`."""

Passes: TypeAlias = dict[str, Pass]
Measure: TypeAlias = Callable[[str, Plan], Awaitable[list[Figure]]]
"""One of the comparisons: takes the backend, gives the figures."""
Opening: TypeAlias = Callable[[Peer], AbstractAsyncContextManager[Pass]]
"""Makes a peer ready, and gives its pass."""


async def peer_asks(backend: str, plan: Plan) -> list[Figure]:
    """Compare the asks of 1,000 clients with those of other actors, all around the same core."""
    clients, asks = plan.scaled(1000, 20), 5

    @asynccontextmanager
    async def ours() -> AsyncIterator[Passes]:
        async with open_allocator(capacity=CAPACITY) as session:
            vm = await session.alloc_set(token="vm")
            yield {OURS: pass_of(through_session(session, vm.sid, asks), clients, asks)}

    @asynccontextmanager
    async def opening(peer: Peer) -> AsyncIterator[Pass]:
        assert peer.asking is not None
        core, sid = new_core()
        async with peer.asking(core) as ask:
            yield pass_of(_through_peer(ask, sid, asks), clients, asks)

    times, left_out = await _take_turns(ours(), opening, plan, lambda each: each.asking is not None)
    return _figures("peer_ask", times, left_out, backend, 2.0, 5.0)


async def peer_fanout(backend: str, plan: Plan) -> list[Figure]:
    """Compare an event for 100 subscribers with telling 100 receivers that have a queue each.

    Ours is asked for, decided, and acknowledged by everybody before it counts as over; before
    theirs the same core call is made, and it is over when everybody has it.
    """
    size, events = 100, plan.scaled(50, 10)

    @asynccontextmanager
    async def ours() -> AsyncIterator[Passes]:
        async with open_audience(ALLOC, [Priority.LAST] * size) as show, open_floor(size) as floor:
            yield {
                OURS: show.until_acknowledged(events),
                TOLD: show.until_told(events),
                FLOOR: floor.until_acknowledged(events),
            }

    @asynccontextmanager
    async def opening(peer: Peer) -> AsyncIterator[Pass]:
        async with _open_show(peer, 1, size, 1) as show:
            yield show.until_acknowledged(events)

    times, left_out = await _take_turns(
        ours(), opening, plan, lambda each: each.telling is not None
    )
    target = {"asyncio": 1.05, "uvloop": 1.1}[backend]
    return _figures("peer_fanout", times, left_out, backend, target)


async def peer_filtered(backend: str, plan: Plan) -> list[Figure]:
    """Compare an event for one of 100 sets, with 10 subscribers each, as above."""
    sets, events = plan.scaled(100, 10), plan.scaled(200, 20)

    @asynccontextmanager
    async def ours() -> AsyncIterator[Passes]:
        async with open_crowd(sets) as crowd, open_floor(SUBSCRIBERS) as floor:
            yield {OURS: crowd.passing(events), FLOOR: floor.until_acknowledged(events)}

    @asynccontextmanager
    async def opening(peer: Peer) -> AsyncIterator[Pass]:
        async with _open_show(peer, sets, SUBSCRIBERS, TARGETS) as show:
            yield show.until_acknowledged(events)

    times, left_out = await _take_turns(
        ours(), opening, plan, lambda each: each.telling is not None
    )
    return _figures("peer_filtered", times, left_out, backend, 0.65)


def _through_peer(ask: Ask, sid: int, asks: int) -> Client:
    async def client(ids: list[int]) -> None:
        for _ in range(asks):
            ioasid = await ask(sid)
            ids.append(ioasid)

    return client


@asynccontextmanager
async def _open_show(peer: Peer, groups: int, size: int, targets: int) -> AsyncIterator[Show]:
    # Events go to some of the groups, in turn, spread evenly among the others.
    assert peer.telling is not None
    audience = Audience(groups * size)
    all_told: list[list[Told]] = [[] for _ in range(groups * size)]
    targeted = [target * (groups // targets) for target in range(targets)]

    def got(number: int, message: int) -> None:
        audience.take()
        all_told[number].append((EventKind.ALLOC, message))
        audience.rest()

    def expected(events: int) -> list[list[Told]]:
        told: list[list[Told]] = [[] for _ in all_told]
        for number in range(events):
            group = targeted[number % targets]
            for receiver in range(group * size, (group + 1) * size):
                told[receiver].append((EventKind.ALLOC, published + 1 - events + number))
        return told

    core, sid = new_core()
    published = 0

    async with peer.telling(groups, size, got) as tell:

        async def publish(number: int) -> None:
            # The same core call as behind an event of ours, here a plain one.
            nonlocal published
            published = allocate(core, sid)
            await tell(targeted[number % targets], published)

        await wait_all_tasks_blocked()
        for _ in all_told:
            audience.rest()
        yield Show(audience, publish, nothing, all_told, expected, nothing, size)


# -- the turns ------------------------------------------------------------------------------------


async def _take_turns(
    ours: AbstractAsyncContextManager[Passes],
    opening: Opening,
    plan: Plan,
    does: Callable[[Peer], bool],
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Measure us and the peers that can do it here; return the times, and who cannot and why."""
    found, left_out = _load()
    async with ours as our_passes:
        times: dict[str, list[float]] = {}
        together = [peer for peer in found if does(peer) and not peer.apart]
        # Who runs processes of its own takes turns with us alone, when the others are gone.
        for group in (together, *([peer] for peer in found if does(peer) and peer.apart)):
            async with AsyncExitStack() as stack:
                passes = dict(our_passes)
                for peer in group:
                    try:
                        each = await stack.enter_async_context(opening(peer))
                        with fail_after(PATIENCE):
                            await each()
                    except Exception as error:  # noqa: BLE001 - that is the reason, whatever it is
                        left_out[peer.name] = f"{type(error).__name__}: {error}"
                    else:
                        passes[peer.name] = each
                taken = await take_turns(passes, plan)
            for name in passes:
                times.setdefault(name, taken[name])
    return times, left_out


def peers() -> list[str]:
    """Return the names of the peers that are installed."""
    return [peer.name for peer in _load()[0]]


def _load() -> tuple[list[Peer], dict[str, str]]:
    found: list[Peer] = []
    left_out: dict[str, str] = {}
    for module in MODULES:
        try:
            loaded = import_module(f"benchmarks.peers.{module}")
        except ImportError as error:
            left_out[module] = f"not installed ({error})"
        else:
            found.append(loaded.PEER)
    return found, left_out


def _figures(
    name: str,
    times: dict[str, list[float]],
    left_out: dict[str, str],
    backend: str,
    fastest: float,
    rest: float | None = None,
) -> list[Figure]:
    ours = [each for each in (OURS, TOLD, FLOOR) if each in times]
    order = sorted(times.keys() - {*ours}, key=lambda each: median(times[each]))
    times = {each: times[each] for each in (*ours, *order)}
    note = ""
    if left_out:
        reasons = "; ".join(f"{each}: {reason:.120}" for each, reason in left_out.items())
        note = f"{name} on {backend} without {reasons}"
    return [
        compare(
            times,
            peer,
            OURS,
            name=f"{name}_{suffix}",
            backend=backend,
            unit=f"x {peer}, at least",
            target=target,
            at_least=True,
            note=note,
        )
        for peer, suffix, target in zip(order, ("fastest", "rest"), (fastest, rest), strict=False)
        if target is not None
    ]
