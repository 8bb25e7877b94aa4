"""The door between threads, and that there is no other one."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from threading import Thread
from typing import Any, Final

import anyio
import pytest

from ioasid.actors import (
    Decision,
    Host,
    Session,
    Step,
    Subscription,
    Vm,
    VmExport,
    WrongThread,
    open_allocator,
    open_host,
)
from ioasid.actors._thread import Door
from ioasid.core import Event, EventKind
from tests.actors.hosts import settle
from tests.actors.inside import core_of, nobody_waits
from tests.actors.test_foreign_values import FITTING

pytestmark = pytest.mark.anyio

Calls = dict[str, Callable[[], object]]


async def test_a_door_is_open_on_its_own_thread_only() -> None:
    """In any other thread it raises, and names what it belongs to."""
    door = Door("vtd")
    door.check()
    with pytest.raises(WrongThread) as caught:
        await anyio.to_thread.run_sync(door.check)
    assert "vtd" == caught.value.what


async def test_another_thread_is_let_in_soon() -> None:
    """What a thread hands in is called on the event loop, at once."""
    door, called = Door("vtd"), anyio.Event()
    thread = Thread(target=door.run_soon, args=(called.set,))
    thread.start()
    await called.wait()
    thread.join()


def test_a_door_of_an_event_loop_that_has_ended_does_nothing() -> None:
    """Whoever knocks then is not told, and nothing is called."""
    doors: list[Door] = []
    called: list[int] = []
    for backend in ("asyncio", "trio"):

        async def main() -> None:
            doors.append(Door("vtd"))

        anyio.run(main, backend=backend)
        doors[-1].run_soon(lambda: called.append(1))
    assert [] == called


# Sessions and subscriptions


def doors_of(session: Session, subscription: Subscription, in_hand: Event) -> Calls:
    """Every call of a session and a subscription that does something."""
    requests = [
        name
        for name, method in inspect.getmembers(Session)
        if inspect.iscoroutinefunction(method) and not name.startswith("_")
    ]
    assert {"ask", "alloc", "free_many", "list_groups", "snapshot"} <= set(requests)
    calls: Calls = {}
    for name in requests:
        method = getattr(session, name)
        given = {
            each.name: FITTING[each.name]
            for each in inspect.signature(method).parameters.values()
            if each.default is inspect.Parameter.empty
        }
        calls[name] = partial(method, **given)
    return calls | {
        "session": session.session("another").__aenter__,
        "subscribe": session.subscribe(sid=0).__aenter__,
        "next": lambda: anext(subscription),
        "take": subscription.take,
        "acknowledge": lambda: subscription.acknowledge(in_hand),
        "defer": lambda: subscription.defer(in_hand),
        "leave": lambda: subscription.__aexit__(None, None, None),
        "crash": lambda: subscription.__aexit__(ValueError, ValueError(), None),
    }


async def call_it(call: Callable[[], object]) -> None:
    """Call what may have to be awaited."""
    answer = call()
    if isinstance(answer, Awaitable):
        await answer


def step(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine without any event loop, until it would wait."""
    coroutine.send(None)
    raise AssertionError("it waits")


def on_a_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on an event loop of asyncio, in its debug mode."""
    asyncio.run(coroutine, debug=True)


def on_trio(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on an event loop of trio."""

    async def main() -> None:
        await coroutine

    anyio.run(main, backend="trio")


BACKENDS: Final = {
    "asyncio": ("asyncio", {"debug": True}),
    "uvloop": ("asyncio", {"use_uvloop": True, "debug": True}),
    "trio": ("trio", {}),
}


@pytest.mark.parametrize("taken", [0, 1])
@pytest.mark.parametrize("run", [step, on_a_loop, on_trio], ids=lambda each: each.__name__)
@pytest.mark.parametrize("anyio_backend", BACKENDS.values(), ids=BACKENDS)
async def test_no_call_from_another_thread_does_anything(
    run: Callable[[Coroutine[Any, Any, None]], None], taken: int
) -> None:
    """Each is an error there at once, on whatever loop; nothing happened and nothing is stuck."""
    raised: dict[str, BaseException | None] = {}

    def try_every_door(doors: Calls) -> None:
        for name, call in doors.items():
            try:
                run(call_it(call))
            except BaseException as error:  # noqa: BLE001 - the test asserts what it was
                raised[name] = error
            else:
                raised[name] = None

    decisions: list[Decision] = []
    async with (
        open_allocator(taps=[decisions.append]) as host,
        host.subscribe(kinds={EventKind.ALLOC}) as events,
    ):
        sid = (await host.alloc_set("vm-1", 8)).sid
        await host.alloc_many(sid, 3)
        await settle()
        # Once with a message in hand, which must stay there, and once with none.
        first = events.take() if taken else None
        message = first or Event(1, EventKind.ALLOC, 1, 0, None, None)
        assert isinstance(message, Event)
        before = core_of(host).snapshot()
        decisions.clear()

        thread = Thread(target=try_every_door, args=(doors_of(host, events, message),))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        expected = dict.fromkeys(raised, WrongThread)
        if not taken:
            # Refused for another reason, before it does anything.
            expected["defer"] = RuntimeError  # type: ignore[assignment]
        assert expected == {name: type(each) for name, each in raised.items()}

        await settle()
        assert [] == decisions
        assert before == core_of(host).snapshot()
        assert nobody_waits(host)
        if first is None:
            first = events.take()
        rest = [await anext(events), await anext(events)]
        assert [1, 2, 3] == [getattr(each, "ioasid", None) for each in (first, *rest)]
        assert 4 == await host.alloc(sid)
        figures = await host.statistics()
        assert (1, 1, 4) == (figures.sessions, figures.subscriptions, figures.active)


# Hosts and VMs


def doors_of_a_host(host: Host, vm: Vm, export: VmExport) -> Calls:
    """Every call of a host and a VM that does something."""
    given = FITTING | {"name": "vm-2", "device": "dsa0", "pasid": 1, "export": export}
    calls: Calls = {"crash": vm.crash, "run of an actor": lambda: host.vtd.run(host.allocator)}
    for owner in (host, vm):
        for name, method in vars(type(owner)).items():
            if inspect.iscoroutinefunction(method) and not name.startswith("_"):
                arguments = {
                    each.name: given[each.name]
                    for each in inspect.signature(method).parameters.values()
                    if each.default is inspect.Parameter.empty and each.name != "self"
                }
                calls[f"{name} of {type(owner).__name__}"] = partial(method, owner, **arguments)
    assert {"start_vm of Host", "sva_unbind of Host", "gone of Vm", "close of Vm"} <= set(calls)
    return calls


@pytest.mark.parametrize("run", [step, on_a_loop, on_trio], ids=lambda each: each.__name__)
@pytest.mark.parametrize("anyio_backend", BACKENDS.values(), ids=BACKENDS)
async def test_no_call_of_a_host_from_another_thread_does_anything(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """Nothing is begun for a caller that gets an error, and nobody else is disturbed."""
    raised: dict[str, BaseException | None] = {}
    decisions: list[Decision | Step] = []
    async with open_host(capacity=64, system_quota=4, taps=[decisions.append]) as host:
        await host.add_device("dsa0")
        vm = await host.start_vm("vm-1", quota=8)
        await vm.bind("dsa0", await vm.alloc(), 101)
        await vm.freeze()
        export = await vm.export()
        await vm.run()
        await settle()
        decisions.clear()

        def try_every_door() -> None:
            for name, call in doors_of_a_host(host, vm, export).items():
                try:
                    run(call_it(call))
                except BaseException as error:  # noqa: BLE001 - the test asserts what it was
                    raised[name] = error
                else:
                    raised[name] = None

        thread = Thread(target=try_every_door)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        await settle()
        assert dict.fromkeys(raised, WrongThread) == {k: type(each) for k, each in raised.items()}
        assert [] == decisions
        assert (["vm-1"], ["dsa0"]) == ([*host.vms], [*host.devices])
        await host.start_vm("vm-2", quota=1)
        await vm.close()
