"""One connection without any I/O: bytes to frames and back, for both sides.

A frame is four bytes of length, big-endian, and so much msgpack; or it is one line of JSON. Which
of them is told by its first byte: a length is at most 1 MiB and begins with 0, a JSON object with
`{`. Both may alternate, and a server answers in the form that it was last asked in.

Bytes go in through `receive`, which returns the frames that are complete; `pack` makes bytes of a
frame. What to do with frames is not known here.
"""

from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, cast

import msgspec
from attrs import frozen

from ioasid.core import (
    IoasidError,
    MalformedMessage,
    WireFormat,
    refusal_of,
)
from ioasid.core._errors import shown
from ioasid.core._terms import Ioasid
from ioasid.service._errors import ProtocolViolated, TooLarge
from ioasid.service._forgiving import pruned, request_of
from ioasid.service._frames import (
    MAX_FRAME,
    Answered,
    Ask,
    ClientFrame,
    Frame,
    GiveUp,
    Part,
    ServerFrame,
)

__all__ = ["BadAsk", "ClientConnection", "Connection", "ServerConnection"]

F = TypeVar("F")

BRACE: Final = ord("{")
BLANK: Final = frozenset(b"\r\n")


def _bare(value: object) -> int:
    # msgspec takes no subclass of int by itself.
    if isinstance(value, Ioasid):
        return int(value)
    raise TypeError(f"{shown(value)} has no form on a wire")


# An enum's member costs a look-up by its class each time.
MSGPACK: Final = WireFormat.MSGPACK
JSON: Final = WireFormat.JSON

_MSGPACK: Final = msgspec.msgpack.Encoder(enc_hook=_bare)
_JSON: Final = msgspec.json.Encoder(enc_hook=_bare)

_CLIENT: Final[dict[str, Any]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Decoder(ClientFrame),
    WireFormat.JSON: msgspec.json.Decoder(ClientFrame),
}
_SERVER: Final[dict[str, Any]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Decoder(ServerFrame),
    WireFormat.JSON: msgspec.json.Decoder(ServerFrame),
}


@frozen
class BadAsk:
    """What was to be an `Ask`, and whose request is refused before anybody looks at it."""

    id: int | None
    error: IoasidError


Received: TypeAlias = ClientFrame | BadAsk
"""What a server receives."""


class Connection(Generic[F]):
    """One side of a connection, which receives frames `F`; see the module's docstring.

    Once there is an `error` the connection is broken: deal with the frames that came before, say
    so to the other side and close it.
    """

    __slots__ = ("_buffer", "_decoders", "_scanned", "error", "wire_format")

    _lines_have_a_bound: ClassVar[bool] = True

    def __init__(self, decoders: dict[str, Any], wire_format: WireFormat) -> None:
        self._decoders = decoders
        self._buffer = bytearray()
        self._scanned = 0
        """How much of an unfinished line was looked through."""
        self.wire_format = wire_format
        """In what form `pack` writes."""
        self.error: TooLarge | ProtocolViolated | None = None
        """What the other side did wrong; nothing is received any more."""

    def receive(self, data: bytes) -> list[F]:
        """Take bytes as they come; returns the frames that they complete, in order.

        Look at `error` afterwards. How the bytes are cut makes no difference.
        """
        frames: list[F] = []
        if self.error is None:
            buffer = self._buffer
            try:
                if (
                    not buffer
                    and 4 < (size := len(data)) <= MAX_FRAME
                    and int.from_bytes(data[:4], "big") == size - 4
                ):
                    # What comes most often: one frame as a whole.
                    self._take(frames, data[4:], MSGPACK)
                elif buffer:
                    buffer += data
                    del buffer[: self._parse(buffer, frames)]
                elif (used := self._parse(data, frames)) < len(data):
                    buffer += data[used:]
            except (TooLarge, ProtocolViolated) as error:
                self.error = error
                buffer.clear()
        return frames

    def _parse(self, data: bytes | bytearray, frames: list[F]) -> int:
        start = 0
        end = len(data)
        while start < end:
            first = data[start]
            if first == 0:
                begin = start + 4
                if begin > end:
                    break
                size = int.from_bytes(data[start:begin], "big")
                if size > MAX_FRAME:
                    raise TooLarge(size, MAX_FRAME)
                stop = begin + size
                if stop > end:
                    break
                self._take(frames, data[begin:stop], MSGPACK)
                start = stop
            elif first == BRACE:
                stop = data.find(b"\n", start + self._scanned)
                if stop < 0:
                    self._scanned = end - start
                    if self._lines_have_a_bound and self._scanned > MAX_FRAME:
                        raise TooLarge(self._scanned, MAX_FRAME)
                    break
                self._scanned = 0
                self._take(frames, data[start:stop], JSON)
                start = stop + 1
            elif first in BLANK:
                start += 1
            else:
                raise ProtocolViolated(
                    f"a frame that begins with {first:#04x}: neither 0, as a length of at most "
                    f"{MAX_FRAME} does, nor an opening {{"
                )
        return start

    @property
    def inside(self) -> bool:
        """Whether a frame has begun and is not complete: a connection that ends here was cut."""
        return bool(self._buffer)

    def pack(self, frame: Frame | msgspec.Struct) -> bytes:
        """Make bytes of a frame. Raises `TooLarge`, and `MalformedMessage` for what has no form."""
        if self.wire_format == JSON:
            line = _encoded(_JSON, frame) + b"\n"
            self._refuse_larger(len(line))
            return line
        data = _encoded(_MSGPACK, frame)
        self._refuse_larger(len(data))
        return len(data).to_bytes(4, "big") + data

    def _refuse_larger(self, size: int) -> None:
        if size > MAX_FRAME:
            raise TooLarge(size, MAX_FRAME)

    def _take(self, frames: list[F], data: bytes | bytearray, wire_format: WireFormat) -> None:
        self.wire_format = wire_format
        decoder = self._decoders[wire_format]
        try:
            frames.append(decoder.decode(data))
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            frames.append(self._doubtful(data, wire_format, error))

    def _doubtful(self, data: bytes | bytearray, wire_format: WireFormat, error: Exception) -> F:
        raise ProtocolViolated(f"a frame that can't be read ({error})")


class ServerConnection(Connection[Received]):
    """The server's side: it receives what clients send."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_CLIENT, MSGPACK)

    def pack(self, frame: Frame | msgspec.Struct) -> bytes:
        """Make bytes of a frame; of one that is too large, several.

        A line of JSON may be as long as what there is to say.
        """
        if self.wire_format == JSON:
            return _encoded(_JSON, frame) + b"\n"
        data = _encoded(_MSGPACK, frame)
        if len(data) <= MAX_FRAME:
            return len(data).to_bytes(4, "big") + data
        # The encoding of a part takes some bytes besides.
        size = MAX_FRAME - 64
        ends = range(0, len(data), size)
        parts = (Part(data[each : each + size], each != ends[-1]) for each in ends)
        return b"".join(len(each).to_bytes(4, "big") + each for each in map(_MSGPACK.encode, parts))

    def _doubtful(
        self, data: bytes | bytearray, wire_format: WireFormat, error: Exception
    ) -> Received:
        found = _decoded(data, wire_format)
        name = found.get("type")
        if name == "GiveUp":
            number, of = _number(found, "id"), _number(found, "of")
            if number is not None and of is not None:
                return GiveUp(number, of, _number(found, "session"))
        if name != "Ask":
            if isinstance(name, str) and name in {"Hello", "Narrow", "GiveUp"}:
                raise ProtocolViolated(f"a {name} that can't be read ({error})")
            raise ProtocolViolated(f"there is no frame {shown(name)} from a client")
        number = _number(found, "id")
        session = _number(found, "session")
        try:
            request = request_of(found.get("request"))
            return Ask(request, number, session, found.get("insists") is True)
        except IoasidError as refusal:
            return BadAsk(number, refusal)


class ClientConnection(Connection[ServerFrame]):
    """The client's side: it receives what a server sends."""

    __slots__ = ("_parts",)

    # The server is trusted with the length of what it has to say.
    _lines_have_a_bound = False

    def __init__(self, wire_format: WireFormat = WireFormat.MSGPACK) -> None:
        super().__init__(_SERVER, wire_format)
        self._parts = bytearray()

    def _take(
        self, frames: list[ServerFrame], data: bytes | bytearray, wire_format: WireFormat
    ) -> None:
        super()._take(frames, data, wire_format)
        frame = frames[-1]
        if type(frame) is Part:
            del frames[-1]
            self._parts += frame.data
            if not frame.more:
                whole, self._parts = bytes(self._parts), bytearray()
                super()._take(frames, whole, wire_format)

    def _doubtful(
        self, data: bytes | bytearray, wire_format: WireFormat, error: Exception
    ) -> ServerFrame:
        found = _decoded(data, wire_format)
        try:
            return cast(ServerFrame, msgspec.convert(pruned(found, ServerFrame), ServerFrame))
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            pass
        number = found.get("id")
        if found.get("type") == "Answered" and isinstance(number, int):
            # One answer that is not understood is no reason to end the others.
            refusal = MalformedMessage("answer", str(error))
            return Answered(number, refusal_of(refusal))
        raise ProtocolViolated(f"a frame that can't be read ({error})")


def _number(found: dict[str, Any], field: str) -> int | None:
    value = found.get(field)
    least = 0 if field == "session" else 1
    if value is None or (type(value) is int and least <= value < 2**64):
        return value
    raise ProtocolViolated(
        f"a frame with the {field} {shown(value)}: pass a whole number from {least} to 2^64 - 1"
    )


def _encoded(encoder: Any, frame: object) -> bytes:
    try:
        return cast(bytes, encoder.encode(frame))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MalformedMessage("message", str(error)) from None


def _decoded(data: bytes | bytearray, wire_format: WireFormat) -> dict[str, Any]:
    decoder = msgspec.json if wire_format == JSON else msgspec.msgpack
    try:
        found = decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        name = "JSON" if wire_format == JSON else "msgpack"
        _, _, place = str(error).partition("malformed: ")
        where = f": {place}" if place else ""
        raise ProtocolViolated(f"a frame that is not valid {name}{where}") from None
    if not isinstance(found, dict) or not all(type(each) is str for each in found):
        raise ProtocolViolated(f"{shown(found)} where a frame belongs")
    return found
