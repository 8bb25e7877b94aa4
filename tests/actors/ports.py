"""The ports that the tests of sessions and subscriptions run on.

Whoever writes another port adds it here, with what opens an allocator and gives its first session
by that port: it passes the same tests.
"""

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from ioasid.actors import Session, open_allocator
from ioasid.actors._open import open_driver
from ioasid.core import WireFormat
from ioasid.service import Policy, connect_allocator, serving

OpenSession: TypeAlias = Callable[..., AbstractAsyncContextManager[Session]]
"""Opens an allocator for the length of an `async with`; takes what `open_allocator` takes."""


@asynccontextmanager
async def open_remote(
    *, holder: str = "host", wire_format: WireFormat = WireFormat.MSGPACK, **options: Any
) -> AsyncIterator[Session]:
    """Open an allocator, serve it on a socket, and connect to it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        path = Path(folder, "socket")
        listener.bind(os.fspath(path))
        listener.listen()
        async with (
            open_driver(**options) as driver,
            serving(driver, listener, Policy.only(os.getuid())),
            connect_allocator(path, holder=holder, wire_format=wire_format) as session,
        ):
            yield session


PORTS: Final[dict[str, OpenSession]] = {
    "local": open_allocator,
    "remote": open_remote,
    "remote JSON": partial(open_remote, wire_format=WireFormat.JSON),
}
