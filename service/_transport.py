"""Transports: how the bytes of a connection travel, on every event loop.

Whoever uses one is a `Receiver`: it is called with what comes, and asked for what is to be sent
when that can be sent. So what waits for a slow reader waits in one place, where it can still be
folded, and everything of one turn of the event loop is sent at once. On asyncio and uvloop a
transport is `Wire`, a protocol of asyncio's; elsewhere it is two tasks around a socket (`_stream`).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, cast

__all__: list[str] = []

logger = logging.getLogger("ioasid.service")

HIGH_WATER: Final = 1 << 18
"""Bytes that may wait inside of a transport before no more is asked for."""
READ: Final = 1 << 16
"""Bytes to read at once."""
CHUNK: Final = 1 << 16
"""Bytes that a receiver gives at once, or more; fewer are all that there are."""


class Receiver(Protocol):
    """Who uses a transport. Nothing here waits or raises."""

    def connected(self, transport: "Transport", /) -> None:
        """Take the transport; called once, first."""

    def data_received(self, data: bytes, /) -> None:
        """Take bytes as they come."""

    def data_to_send(self) -> bytes:
        """Give bytes that are to be sent; there may be more if it is at least a `CHUNK`."""

    def disconnected(self) -> None:
        """Learn that there is no connection any more; called once, last."""


class Transport(Protocol):
    """A connection's way out; see `Receiver`."""

    def wake(self) -> None:
        """Ask the receiver, soon, for what is to be sent."""

    def pause(self) -> None:
        """Read nothing, until `resume`."""

    def resume(self) -> None:
        """Read again."""

    def close(self) -> None:
        """Send what there is, and end; nothing is received any more."""

    def abort(self) -> None:
        """End at once."""

    def fileno(self) -> int:
        """Return the descriptor of the socket."""


Soon: TypeAlias = Callable[[Callable[[], object]], object]
"""Calls something soon: in the next turn of the event loop at the latest."""
NewReceiver: TypeAlias = Callable[[], Receiver]
"""Makes the receiver of one more connection."""


class Wires:
    """What the wires of one listener share: the bytes that one reads, and who sends in this turn.

    One buffer for all, because what is read is taken at once, and memory of that size would come
    from the system and go back with every read. One call for all that have something to send.
    """

    def __init__(self, soon: Soon | None = None) -> None:
        self.buffer: Final = memoryview(bytearray(READ))
        self._soon: Final = soon or asyncio.get_running_loop().call_soon
        self._woken: list[Wire] = []

    def wake(self, wire: "Wire") -> None:
        """Let a wire send soon, with all that comes until then."""
        if not self._woken:
            self._soon(self._send)
        self._woken.append(wire)

    def _send(self) -> None:
        woken, self._woken = self._woken, []
        for wire in woken:
            wire.send()


class Wire(asyncio.Protocol, asyncio.BufferedProtocol):
    """A transport on asyncio or uvloop.

    To asyncio it is a buffered protocol. To uvloop it is a plain one: that loop has one buffer for
    all connections itself, and to ask for another would cost each read a call.
    """

    __slots__ = (
        *("_buffer", "_closing", "_receiver", "_transport", "_wires", "_woken", "_writable"),
    )

    def __init__(self, wires: Wires, receiver: Receiver) -> None:
        self._wires = wires
        self._buffer = wires.buffer
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._woken = False
        self._closing = False

    # -- what the event loop calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's is no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER)
        self._receiver.connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read there."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Pass on what came."""
        if not self._closing:
            self._receiver.data_received(data)

    def eof_received(self) -> bool:
        """Take a half-closed connection for one that is gone."""
        return False

    def pause_writing(self) -> None:
        """Ask for nothing more."""
        self._writable = False

    def resume_writing(self) -> None:
        """Ask again, in a turn of its own: asyncio does not expect to be closed in this call."""
        self._writable = True
        self.wake()

    def connection_lost(self, _: Exception | None) -> None:
        """End."""
        self._transport = None
        self._receiver.disconnected()

    # -- what its receiver calls --------------------------------------------------------------

    def wake(self) -> None:
        """Send soon, with all that comes until then."""
        if not self._woken:
            self._woken = True
            self._wires.wake(self)

    def send(self) -> None:
        """Send what there is, as far as it can be."""
        self._woken = False
        transport = self._transport
        while self._writable and transport is not None and not transport.is_closing():
            try:
                data = self._receiver.data_to_send()
            except Exception:
                # It costs that connection, and not the others of this turn.
                logger.exception("a connection could not be served")
                self.abort()
                break
            if data:
                transport.write(data)
            if len(data) < CHUNK:
                if self._closing:
                    transport.close()
                break

    def pause(self) -> None:
        """Stop reading."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what there is, and end."""
        self._closing = True
        self.wake()

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        assert self._transport is not None
        descriptor: int = self._transport.get_extra_info("socket").fileno()
        return descriptor
