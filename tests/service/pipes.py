"""A connection without a socket, for explored schedules: pieces of any size, and cuts anywhere."""

from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ioasid.service._transport import Receiver
from ioasid.testing._picker import choose

SIZES = (1 << 20, 1, 7, 40)
"""Bytes of a piece; what is plain comes first."""


class End:
    """One end of a connection: a transport, whose bytes arrive at the other end in pieces."""

    def __init__(self, receiver: Receiver, tasks: TaskGroup) -> None:
        self.receiver = receiver
        self.other: End = self
        self._tasks = tasks
        self._awake = False
        self._closing = False
        self._paused = False
        self._held = b""
        self.gone = False

    def wake(self) -> None:
        """Send soon."""
        if not self._awake and not self.gone:
            self._awake = True
            self._tasks.start_soon(self._send, name="a pipe")

    async def _send(self) -> None:
        await checkpoint()
        # One sends at a time: what is new waits for the pieces before it.
        while data := b"" if self.gone else self.receiver.data_to_send():
            while data:
                size = choose(SIZES)
                self.other.take(data[:size])
                data = data[size:]
                await checkpoint()
        self._awake = False
        if self._closing:
            self.abort()

    def take(self, data: bytes) -> None:
        """Receive a piece, unless that is to wait."""
        if self.gone or self._closing:
            return
        if self._paused:
            self._held += data
        else:
            self.receiver.data_received(data)

    def pause(self) -> None:
        """Let what comes wait."""
        self._paused = True

    def resume(self) -> None:
        """Go on with what waits."""
        self._paused = False
        held, self._held = self._held, b""
        if held:
            self.receiver.data_received(held)

    def close(self) -> None:
        """Send what there is, and end."""
        self._closing = True
        self.wake()

    def abort(self) -> None:
        """End, here and there."""
        for end in (self, self.other):
            if not end.gone:
                end.gone = True
                self._tasks.start_soon(end.end, name="the end of a pipe")

    async def end(self) -> None:
        """Learn of the end, at another time than the other side."""
        self.receiver.disconnected()

    def fileno(self) -> int:
        """There is none."""
        return -1


def joined(one: Receiver, other: Receiver, tasks: TaskGroup) -> End:
    """Connect two; returns the end of the first."""
    ends = End(one, tasks), End(other, tasks)
    ends[0].other, ends[1].other = ends[1], ends[0]
    for end in reversed(ends):
        end.receiver.connected(end)
    return ends[0]
