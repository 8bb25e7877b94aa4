"""The server: connections to an allocator, over a listening socket.

It opens sessions for others as the allocator's driver and is no holder itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from secrets import token_hex
from socket import socket as Socket  # noqa: N812 - a class
from typing import Final

from anyio import create_task_group, current_time, move_on_after
from anyio.abc import TaskGroup
from attrs import frozen

from ioasid.actors._local_port import LocalPort
from ioasid.actors._one_task import one_task
from ioasid.actors._reply import Reply, reply_factory
from ioasid.service._account import Account, Asks
from ioasid.service._credentials import credentials_of
from ioasid.service._errors import ProtocolViolated, TooMany
from ioasid.service._gate import Gate
from ioasid.service._limits import Limits
from ioasid.service._memory import Memories
from ioasid.service._peer import Peer
from ioasid.service._permits import Permit
from ioasid.service._policy import Policy
from ioasid.service._shared import Shared
from ioasid.service._sockets import listening

__all__ = ["Server", "ServerStatistics", "serving"]

GRACE: Final = 1.0
"""Seconds that a connection has to take its last bytes when the server ends."""


@frozen
class ServerStatistics:
    """The figures of a server: what there is now, and what was refused since it began."""

    connections: int
    sessions: int
    subscriptions: int
    queued: int
    """Answers and messages that wait for somebody who reads slowly."""
    accepted: int
    """Connections that came, the refused ones included."""
    refusals: dict[str, int]
    """By the name of the error: requests and connections that were refused."""
    asks: Asks


class Server:
    """What answers the connections to one allocator; made by `serving`."""

    def __init__(
        self,
        driver: LocalPort,
        policy: Policy,
        limits: Limits,
        tasks: TaskGroup,
        gate: Gate | None,
    ) -> None:
        self.policy = policy
        """May be replaced; it holds for connections that come."""
        memories = Memories(limits.requests, limits.waits, limits.remembered_clients)
        epoch = token_hex(8)
        self._shared = Shared(driver, limits, epoch, memories, Account(), gate, tasks)
        self._limits = limits
        self._peers: dict[Peer, float] = {}
        """With when each has to have said Hello."""
        self._users: dict[int, int] = {}
        """How many connections each user has."""
        self._new_reply = reply_factory()
        self._came: Reply[None] = self._new_reply()
        self._empty: Reply[None] | None = None
        self._ended: str | None = None
        """Why whoever comes yet is said goodbye to."""

    def new_peer(self) -> Peer:
        """Return what receives one more connection."""
        self._shared.account.accepted += 1
        peer = Peer(self._shared, self._identify, self._gone)
        self._peers[peer] = current_time() + self._limits.hello_within
        if self._ended is not None:
            peer.goodbye(self._ended)
        if not self._came.done():
            self._came.set_result(None)
        return peer

    def _identify(self, descriptor: int) -> Permit:
        permit = self.policy.permit(credentials_of(descriptor))
        limits = self._limits
        if len(self._peers) > limits.connections:
            raise TooMany("connections", limits.connections)
        count = self._users.get(permit.uid, 0)
        if count >= limits.connections_per_user:
            raise TooMany("connections of one user", limits.connections_per_user)
        self._users[permit.uid] = count + 1
        return permit

    def _gone(self, peer: Peer) -> None:
        self._peers.pop(peer, None)
        if peer.permit is not None:
            self._users[peer.permit.uid] -= 1
            if not self._users[peer.permit.uid]:
                del self._users[peer.permit.uid]
        if self._empty is not None and not self._peers and not self._empty.done():
            self._empty.set_result(None)

    async def watch_hellos(self) -> None:
        """Cut off who connects and says nothing; for a task of its own."""
        while True:
            silent = [when for peer, when in self._peers.items() if not peer.greeted]
            self._came = self._new_reply()
            due = min(silent, default=inf)
            with move_on_after(None if due == inf else max(due - current_time(), 0)) as waited:
                await self._came
            if not waited.cancelled_caught:
                continue
            now = current_time()
            for peer, when in tuple(self._peers.items()):
                if peer.greeted or when > now:
                    continue
                if peer.ended:
                    # It does not even take what it is refused with.
                    peer.abort()
                    self._peers[peer] = inf
                else:
                    peer.refuse(ProtocolViolated("no Hello came in time"))
                    self._peers[peer] = now + GRACE

    async def end(self, reason: str) -> None:
        """Say goodbye to everybody, and wait for it to be taken, a little."""
        self._ended = reason
        for peer in tuple(self._peers):
            peer.goodbye(reason)
        await self._emptied(GRACE)
        for peer in tuple(self._peers):
            peer.abort()
        await self._emptied(None)

    async def _emptied(self, within: float | None) -> None:
        if self._peers:
            self._empty = self._new_reply()
            with move_on_after(within):
                await self._empty

    def statistics(self) -> ServerStatistics:
        """Return the figures of this moment."""
        peers, account = self._peers, self._shared.account
        return ServerStatistics(
            len(peers),
            sum(each.sessions for each in peers),
            sum(each.subscriptions for each in peers),
            sum(each.queued for each in peers),
            account.accepted,
            account.refusals,
            account.asks,
        )


@asynccontextmanager
async def serving(
    driver: LocalPort,
    listener: Socket,
    policy: Policy,
    *,
    limits: Limits | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[Server]:
    """Serve an allocator on a listening Unix socket, for the length of an `async with`.

    The socket is closed with it. Ending in order says goodbye to every client; sessions that are
    open then are suspended, as those of any connection that ends. A `gate` has a say in what
    clients ask.
    """
    with one_task("serving"):
        async with create_task_group() as tasks:
            server = Server(driver, policy, limits or Limits(), tasks, gate)
            tasks.start_soon(server.watch_hellos, name="ioasid hellos")
            async with listening(listener, server.new_peer, driver.afterwards):
                try:
                    yield server
                finally:
                    with move_on_after(2 * GRACE, shield=True):
                        await server.end("was shut down")
            tasks.cancel_scope.cancel()
