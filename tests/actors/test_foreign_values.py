"""Foreign values at every door of the actors: a typed error or an answer, and nobody falls."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from math import inf
from typing import Any, Final, get_args

import anyio
import pytest

from ioasid.actors import (
    Enqcmd,
    Iommu,
    Kvm,
    Session,
    Vdcm,
    VdcmRequest,
    Vfio,
    VfioRequest,
    Vtd,
    VtdRequest,
    open_allocator,
    open_host,
)
from ioasid.core import (
    EventKind,
    InvalidArgument,
    IoasidError,
    SetExport,
    TakeStatistics,
    TokenType,
)
from tests.fuzz.values import Hostile, Number, Text

pytestmark = pytest.mark.anyio

FOREIGN: Final[tuple[Any, ...]] = (
    *(None, True, -1, 2**64, 10**5000, 1.5, float("nan"), "", "\ud800", "x" * 256, b"x", [], {}),
    *([[]], {"BIND"}, [Hostile()], count(), object(), int, Hostile(), Number(1), Text("vm-1")),
)

VALUES: Final = tuple(each for each in FOREIGN if each is not int)
"""Without what can be called: the caller answers for what its own callbacks do."""

FITTING: Final[dict[str, Any]] = {
    "sid": 0,
    "ioasid": 1,
    "pasid": 1,
    "spid": 5,
    "gpasid": 7,
    "count": 1,
    "quota": 3,
    "total": 5,
    "token": "vm",
    "token_type": TokenType.NULL,
    "min": 1,
    "max": 5,
    "data": 1,
    "kind": EventKind.BIND,
    "name": "one more",
    "limit": 2,
    "export": SetExport(None, TokenType.NULL, 1, (), ()),
    "ranges": (),
    "device": "dsa0",
    "vm": "vm",
    "process": 3,
    "transfer": 1,
    "request": TakeStatistics(),
}
"""What the other arguments are."""
SECONDS: Final = 30
"""Virtual on trio, and on asyncio far more than any of it takes."""


def calls(
    call: Callable[..., Any], foreign: tuple[Any, ...] = FOREIGN
) -> Iterator[Callable[[], Any]]:
    """Every call with a foreign value in the place of one argument."""
    parameters = inspect.signature(call).parameters.values()
    required = [each.name for each in parameters if each.default is inspect.Parameter.empty]
    for parameter in parameters:
        for value in foreign:
            given = {name: FITTING[name] for name in required} | {parameter.name: value}
            yield partial(call, **given)


async def survives(call: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Make a call, which may be refused, but neither hang nor raise anything untyped."""
    with anyio.fail_after(seconds):
        with suppress(IoasidError):
            answer = call()
            if isinstance(answer, Awaitable):
                await answer


async def test_sessions() -> None:
    """Every request of a session with a foreign argument is answered or refused."""
    names = [
        name
        for name, method in inspect.getmembers(Session)
        if inspect.iscoroutinefunction(method) and not name.startswith("_")
    ]
    assert {"ask", "alloc", "free_set", "evict", "snapshot"} <= set(names)
    async with open_allocator(capacity=64) as allocator:
        await allocator.alloc_set("vm", 30)
        await allocator.alloc_many(0, 3)
        for name in names:
            for call in calls(getattr(allocator, name)):
                await survives(call)
        for value in FOREIGN:

            async def join(name: Any = value) -> None:
                async with allocator.session(name):
                    pass

            await survives(join)
        await allocator.statistics()


async def test_subscriptions() -> None:
    """A subscription with a foreign argument is refused or works, and takes no foreign message."""
    async with open_allocator(capacity=64) as allocator:
        sid = (await allocator.alloc_set("vm")).sid
        ioasid = await allocator.alloc(sid)
        for call in calls(allocator.subscribe, VALUES):

            async def subscribe(call: Callable[[], Any] = call) -> None:
                async with call() as subscription:
                    await allocator.notify(ioasid, EventKind.BIND)
                    subscription.take()

            await survives(subscribe)
        async with allocator.subscribe() as subscription:
            for value in FOREIGN:
                with pytest.raises(InvalidArgument, match="message is"):
                    subscription.acknowledge(value)
                with pytest.raises(RuntimeError, match="can be deferred"):
                    subscription.defer(value)


async def test_opening() -> None:
    """An allocator, host or actor with a foreign argument is refused or works."""
    async with open_allocator() as allocator:
        snapshot = await allocator.snapshot()
    for opener in (open_allocator, open_host, partial(open_allocator, snapshot=snapshot)):
        for call in calls(opener, VALUES):

            async def opened(call: Callable[[], Any] = call) -> None:
                async with call():
                    pass

            # Virtual time does not wait for the thread that opens a journal.
            await survives(opened, inf)
    vtd = Vtd(0)
    for value in FOREIGN:
        await survives(partial(Kvm, value))
        await survives(partial(Vdcm, value, Iommu()))
        await survives(partial(Vfio, value, 1, vtd))
        await survives(partial(Vtd, 0, max_restarts=value))


async def test_hosts() -> None:
    """Every method of a host and a VM with a foreign argument is answered or refused."""
    async with open_host(capacity=64, system_quota=8) as host:
        await host.add_device("dsa0")
        vm = await host.start_vm("vm", quota=8)
        assert 1 == await vm.alloc(min=FITTING["pasid"])
        await vm.bind("dsa0", 1, 7)
        of_host = "device add_device start_vm complete process_exited"
        of_processes = "sva_bind sva_submit sva_stop sva_unbind"
        of_vm = "alloc bind unbind program submit stop free"
        for target, names in ((host, of_host), (host, of_processes), (vm, of_vm)):
            for name in names.split():
                for call in calls(getattr(target, name)):
                    await survives(call)
        await vm.close()


async def test_actors() -> None:
    """Every request of a device actor with a foreign field is answered or refused; none falls."""
    async with open_host(capacity=64, system_quota=8) as host:
        vdcm = await host.add_device("dsa0")
        vm = await host.start_vm("vm", quota=8)
        assert 1 == await vm.alloc(min=FITTING["ioasid"])
        for actor, requests in (
            (host.vtd, get_args(VtdRequest)),
            (vdcm, get_args(VdcmRequest)),
            (vm.kvm, (Enqcmd,)),
            (vm.vfio, get_args(VfioRequest)[:-1]),
        ):
            for value in FOREIGN:
                await survives(partial(actor.ask, value))
                await survives(partial(actor.tell, value))
            for request in requests:
                for make in calls(request):
                    await survives(partial(actor.ask, make()))
        await vm.close()
