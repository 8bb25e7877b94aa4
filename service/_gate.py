"""A gate before the allocator: somebody else who has a say in some requests, and takes time."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

from ioasid.actors import Session
from ioasid.core import Request

__all__ = ["Carry", "Gate", "Member"]

Carry: TypeAlias = Callable[[Request], Awaitable[Any]]
"""Asks the allocator, on behalf of who asked; gives its answer, an error as well."""


class Gate(Protocol):
    """Who has a say in some requests of clients before the allocator decides them, or after."""

    @property
    def kinds(self) -> frozenset[type]:
        """The kinds of requests that those are; one holds up what its connection asks later."""
        ...

    async def decide(self, request: Request, carry: Carry) -> Any:
        """Return what a request comes to, which `carry` asks the allocator.

        Raises the IoasidError that it is refused with; for anything else the log has a traceback,
        and who asked gets `RequestFailed`.
        """
        ...


Member: TypeAlias = Callable[[str, str, Session], AbstractAsyncContextManager[Gate]]
"""Makes a service one of a fleet's, while it is entered, and gives its gate: from the URL of the
fleet's store, the name of the host, and a session of the service's own."""
