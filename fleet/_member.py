"""A host's service as a member of a fleet: alive, asked before sets are made, told to move them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from anyio import create_task_group

from ioasid.actors import Session
from ioasid.fleet._agent import SetAgent
from ioasid.fleet._etcd import open_store
from ioasid.fleet._gate import FleetGate
from ioasid.fleet._hosts import announce
from ioasid.fleet._line import serving_agent
from ioasid.fleet._tenants import Tenants

__all__ = ["member"]


@asynccontextmanager
async def member(url: str, host: str, allocator: Session) -> AsyncIterator[FleetGate]:
    """Make an allocator that of a fleet's host, while this is entered; gives its gate.

    While the store does not answer, what there is goes on, and no set with a token is made or
    sized. Raises `InvalidArgument`, and ImportError without the extra `fleet`.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(url))
        gate = FleetGate(host, allocator, Tenants(store))
        agent = SetAgent(host, store, allocator)
        await stack.enter_async_context(serving_agent(store, host, agent))
        await stack.enter_async_context(announce(store, host, figures=allocator.statistics))
        tasks = await stack.enter_async_context(create_task_group())
        tasks.start_soon(gate.keep_mending)
        yield gate
        tasks.cancel_scope.cancel()
