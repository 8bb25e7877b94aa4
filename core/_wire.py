"""Messages to bytes and back, as msgpack or JSON, and errors to messages and back.

Everything that arrives is checked for shape here (types, known fields, a known tag); ranges are
checked where the request is decided, by one rule for in-process callers and for the wire.
"""

from enum import StrEnum
from math import isfinite
from typing import Any, Final

import msgspec
from attrs import fields

from ioasid.core import _errors
from ioasid.core._answers import Refused
from ioasid.core._effects import Output
from ioasid.core._errors import InvalidArgument, IoasidError, MalformedMessage, shown
from ioasid.core._requests import Request
from ioasid.core._snapshot import Snapshot
from ioasid.core._terms import Ioasid, Message
from ioasid.core._upgrade import upgrade

__all__ = [
    "WireFormat",
    "decode_output",
    "decode_request",
    "decode_snapshot",
    "encode",
    "error_of",
    "refusal_of",
]


class WireFormat(StrEnum):
    """How messages look as bytes."""

    MSGPACK = "msgpack"
    """Compact and fast."""
    JSON = "json"
    """For people and other tools."""


def _bare(value: object) -> int:
    # msgspec takes no subclass of int by itself.
    if isinstance(value, Ioasid):
        return int(value)
    raise TypeError(f"{shown(value)} has no form on a wire")


_ENCODERS: Final[dict[str, msgspec.msgpack.Encoder | msgspec.json.Encoder]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Encoder(enc_hook=_bare),
    WireFormat.JSON: msgspec.json.Encoder(enc_hook=_bare),
}
_REQUESTS: Final[dict[str, Any]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Decoder(Request),
    WireFormat.JSON: msgspec.json.Decoder(Request),
}
_OUTPUTS: Final[dict[str, Any]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Decoder(Output),
    WireFormat.JSON: msgspec.json.Decoder(Output),
}
_SNAPSHOTS: Final[dict[str, Any]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Decoder(Snapshot),
    WireFormat.JSON: msgspec.json.Decoder(Snapshot),
}
_TREES: Final[dict[str, Any]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Decoder(),
    WireFormat.JSON: msgspec.json.Decoder(),
}
_ERRORS: Final[dict[str, type[IoasidError]]] = {
    name: getattr(_errors, name) for name in _errors.__all__
}


def encode(message: Message, wire_format: WireFormat = WireFormat.MSGPACK) -> bytes:
    """Encode a message of either direction.

    Raises `MalformedMessage` if it is no message or a field holds what has no such form.
    """
    if not isinstance(message, Message):
        raise MalformedMessage("message", f"{type(message).__name__} is no message")
    try:
        data: bytes = _of_format(_ENCODERS, wire_format).encode(message)
        if wire_format == WireFormat.JSON and not _is_finite(
            msgspec.to_builtins(message, enc_hook=_bare)
        ):
            raise ValueError("JSON has no form for infinity and NaN")
        return data
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MalformedMessage("message", str(error)) from None


def _is_finite(value: object) -> bool:
    # In place of what JSON has no form for, msgspec writes null, which says something else.
    match value:
        case float():
            return isfinite(value)
        case dict():
            return all(map(_is_finite, value.values()))
        case list() | tuple():
            return all(map(_is_finite, value))
        case _:
            return True


def decode_request(data: bytes, wire_format: WireFormat = WireFormat.MSGPACK) -> Request:
    """Decode one request. Raises `MalformedMessage` for any bytes that are none."""
    request: Request = _decode(_REQUESTS, "request", data, wire_format)
    return request


def decode_output(data: bytes, wire_format: WireFormat = WireFormat.MSGPACK) -> Output:
    """Decode what comes from the allocator: an answer, `Refused`, an event, an effect.

    Raises `MalformedMessage` for any bytes that are none.
    """
    output: Output = _decode(_OUTPUTS, "output", data, wire_format)
    return output


def decode_snapshot(data: bytes, wire_format: WireFormat = WireFormat.MSGPACK) -> Snapshot:
    """Decode a snapshot; one of version 1 becomes one of the present version.

    Raises `MalformedMessage` for any bytes that are none.
    """
    try:
        snapshot: Snapshot = _decode(_SNAPSHOTS, "snapshot", data, wire_format)
    except MalformedMessage:
        tree = _decode(_TREES, "snapshot", data, wire_format)
        if not isinstance(tree, dict) or tree.get("version") != 1:
            raise
        try:
            return upgrade(tree)
        except (
            msgspec.MsgspecError,
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise MalformedMessage("snapshot", f"{error!s:.80} ({type(error).__name__})") from None
    return snapshot


def _decode(decoders: dict[str, Any], direction: str, data: bytes, wire_format: WireFormat) -> Any:
    try:
        return _of_format(decoders, wire_format).decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise MalformedMessage(direction, str(error)) from None


def _of_format(coders: dict[str, Any], wire_format: object) -> Any:
    coder = coders.get(wire_format) if isinstance(wire_format, str) else None
    if coder is None:
        raise MalformedMessage("message", f"there is no wire format {shown(wire_format)}")
    return coder


def refusal_of(error: IoasidError) -> Refused:
    """Turn the error a request was refused with into the message that says so.

    Raises `InvalidArgument` for what is no error of this project.
    """
    if not isinstance(error, IoasidError):
        raise InvalidArgument.of("error", error, "an IoasidError")
    facts = {each.name: getattr(error, each.name) for each in fields(type(error))}
    return Refused(type(error).__name__, error.code, error.message, facts)


def error_of(refused: Refused) -> IoasidError:
    """Turn a refusal into the error again, of the same type and with the same facts.

    Raises `MalformedMessage` if it names no error of this project or the facts are not its own.
    """
    if type(refused) is not Refused:
        raise MalformedMessage("answer", f"{type(refused).__name__} is no refusal")
    kind = _ERRORS.get(refused.error) if type(refused.error) is str else None
    if kind is None:
        raise MalformedMessage("answer", f"there is no error {shown(refused.error)}")
    expected = {each.name: each.type for each in fields(kind)}
    if (
        type(refused.facts) is not dict
        or expected.keys() != refused.facts.keys()
        or not all(type(refused.facts[name]) is kind_of for name, kind_of in expected.items())
    ):
        raise MalformedMessage("answer", f"{refused.error} does not have these facts")
    return kind(**refused.facts)
