"""Messages as bytes: there and back in both formats, and nothing else gets in."""

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ioasid.core import (
    Alloc,
    Allocated,
    AllocatedMany,
    AllocSet,
    Done,
    Find,
    Free,
    InvalidArgument,
    Ioasid,
    IoasidError,
    IoasidRange,
    IoasidState,
    Listing,
    LiveIoasid,
    MalformedMessage,
    NotOfThisSet,
    Refused,
    Request,
    Statistics,
    Subscribe,
    TakeStatistics,
    UnknownToken,
    WireFormat,
    WouldDeadlock,
    decode_output,
    decode_request,
    decode_snapshot,
    encode,
    error_of,
    refusal_of,
)
from tests.core.examples import OUTPUTS, REQUESTS
from tests.core.helpers import Driver, expect
from tests.core.test_errors import CONCRETE, facts
from tests.fuzz.values import Hostile

Decoder = Callable[..., Any]
DECODERS: list[Decoder] = [decode_request, decode_output, decode_snapshot]
FORMATS = list(WireFormat)


def name(message: object) -> str:
    """The name of a message's type."""
    return type(message).__name__


def pack(value: object, wire_format: WireFormat) -> bytes:
    """Any value in a wire format."""
    return (
        msgspec.json.encode(value)
        if wire_format is WireFormat.JSON
        else msgspec.msgpack.encode(value)
    )


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("request_", REQUESTS, ids=name)
def test_requests(request_: Request, wire_format: WireFormat) -> None:
    """Every request comes back equal, and nothing that comes from the allocator."""
    data = encode(request_, wire_format)
    assert request_ == decode_request(data, wire_format)
    for decode in (decode_output, decode_snapshot):
        with pytest.raises(MalformedMessage):
            decode(data, wire_format)


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("output", OUTPUTS, ids=name)
def test_outputs(output: Any, wire_format: WireFormat) -> None:
    """Everything that comes from the allocator comes back equal, and is no request."""
    data = encode(output, wire_format)
    assert output == decode_output(data, wire_format)
    with pytest.raises(MalformedMessage, match="not a valid request"):
        decode_request(data, wire_format)


def test_msgpack_is_the_default() -> None:
    """What names no format is msgpack."""
    assert encode(Done(), WireFormat.MSGPACK) == encode(Done())
    assert Find(1) == decode_request(encode(Find(1)))
    assert Done() == decode_output(encode(Done()))


def test_json_is_for_people() -> None:
    """The type stands in the field `type`, and what is left out has its default."""
    assert {"type": "Alloc", "sid": 3, "min": 1, "max": None, "data": None} == json.loads(
        encode(Alloc(3), WireFormat.JSON)
    )
    assert Alloc(3) == decode_request(b'{"type": "Alloc", "sid": 3}', WireFormat.JSON)


def test_what_comes_in_numbers_is_an_array() -> None:
    """Ranges and live IDs are written without the names of their fields."""
    ranges = AllocatedMany((IoasidRange(1, 2), IoasidRange(4, 4)))
    assert [[1, 2], [4, 4]] == json.loads(encode(ranges, WireFormat.JSON))["ranges"]
    live = Listing(0, (LiveIoasid(5, 0, "vm-1", IoasidState.ACTIVE, 7, None, 3),))
    assert [[5, 0, "vm-1", "ACTIVE", 7, None, 3]] == (
        json.loads(encode(live, WireFormat.JSON))["ioasids"]
    )


@pytest.mark.parametrize("wire_format", FORMATS)
def test_an_id_that_remembers_its_life_is_written_bare(wire_format: WireFormat) -> None:
    """On a wire it is its number, for `generation` is a field; whoever reads it has an int."""
    remembers, bare = Ioasid(7, 3), 7
    for message, plain in (
        (Free(remembers, generation=3), Free(bare, generation=3)),
        (
            AllocatedMany((IoasidRange(remembers, remembers),), 3),
            AllocatedMany((IoasidRange(7, 7),), 3),
        ),
        (Allocated(remembers, 3), Allocated(bare, 3)),
    ):
        assert encode(plain, wire_format) == encode(message, wire_format)
    decoded = decode_output(encode(Allocated(remembers, 3), wire_format), wire_format)
    assert (Allocated(7, 3), int) == (decoded, type(expect(Allocated, decoded).ioasid))
    strange: Any = Free(object())  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage, match="no form on a wire"):
        encode(strange, wire_format)


MALFORMED: list[Any] = [
    None,
    7,
    "Alloc",
    [],
    {},
    {"type": "Alloc"},
    {"type": "Nothing"},
    {"type": 7},
    {"sid": 0},
    {"type": "Alloc", "sid": "0"},
    {"type": "Alloc", "sid": True},
    {"type": "Alloc", "sid": 1.5},
    {"type": "Alloc", "sid": None},
    {"type": "Alloc", "sid": 0, "data": True},
    {"type": "Alloc", "sid": 0, "surprise": 1},
    {"type": "Free", "ioasid": 1, "wait": 1},
    {"type": "AllocSet", "token": 7},
    {"type": "AllocSet", "token_type": "PASID"},
    {"type": "Subscribe", "kinds": ["BIND", "BOUND"]},
    {"type": "Subscribe", "priority": "cpu"},
    {"type": "Event", "seq": 1, "kind": "BIND", "ioasid": "1", "sid": 0},
    {"type": "Resync", "seq": 1, "ioasids": [[1, 0]]},
    {"type": "Resync", "seq": 1, "ioasids": [[1, 0, None, "ACTIVE", None, None, 1, 1]]},
    {"type": "AllocatedMany", "ranges": [[1, 2, 3]]},
    {"type": "Message"},
]


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("wire_format", FORMATS)
def test_malformed(decode: Decoder, wire_format: WireFormat) -> None:
    """EBADMSG: wrong types, unknown or missing fields, unknown tags; never another exception."""
    for value in MALFORMED:
        with pytest.raises(MalformedMessage):
            decode(pack(value, wire_format), wire_format)


def test_a_part_with_a_field_too_many() -> None:
    """An unknown field is refused in a part of a message, too."""
    figures = next(each for each in OUTPUTS if isinstance(each, Statistics))
    value = json.loads(encode(figures, WireFormat.JSON))
    value["lagging"][0]["surprise"] = 1
    with pytest.raises(MalformedMessage, match="surprise"):
        decode_output(pack(value, WireFormat.JSON), WireFormat.JSON)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xc1",
        b"{",
        b'{"type": "TakeStatistics"',
        b'{"type": "TakeStatistics"} {}',
        b'{"type": "FindSet", "token": "\xff"}',
        b'{"type": "FindSid", "ioasid": 1e999}',
        b"[" * 10_000,
        b"\x91" * 10_000,
        b'{"a":' * 5_000,
        "{}",
        None,
        7,
        [],
    ],
    ids=lambda each: repr(each)[:20],
)
def test_no_bytes_of_this_protocol(decode: Decoder, wire_format: WireFormat, data: Any) -> None:
    """EBADMSG: truncated, nested without end, not UTF-8, not bytes."""
    with pytest.raises(MalformedMessage):
        decode(data, wire_format)


@pytest.mark.parametrize("unknown", ["yaml", "", None, 7, [], Hostile(), 10**5000], ids=type)
def test_unknown_formats(unknown: Any) -> None:
    """EBADMSG: a format that there is not."""
    with pytest.raises(MalformedMessage, match="no wire format"):
        encode(Done(), unknown)
    for decode in DECODERS:
        with pytest.raises(MalformedMessage, match="no wire format"):
            decode(b"", unknown)


@pytest.mark.parametrize("stranger", [None, 7, "Done", {"type": "Done"}, Done, object()])
def test_strangers_are_not_encoded(stranger: Any) -> None:
    """Only messages have a form on a wire, and only refusals and errors become each other."""
    with pytest.raises(MalformedMessage, match="is no message"):
        encode(stranger)
    with pytest.raises(MalformedMessage, match="is no refusal"):
        error_of(stranger)
    with pytest.raises(InvalidArgument, match="error is"):
        refusal_of(stranger)


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize(
    "message",
    [Find(object()), Find(2**70), AllocSet("\ud800"), Alloc(0, data=lambda: None)],  # type: ignore[arg-type]
)
def test_fields_without_a_form(message: Request, wire_format: WireFormat) -> None:
    """A field that holds what has no form is EBADMSG, or comes back as it was."""
    try:
        data = encode(message, wire_format)
    except MalformedMessage:
        return
    assert message == decode_request(data, wire_format)


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan])
def test_json_has_no_infinity(seconds: float) -> None:
    """EBADMSG: what JSON cannot say is refused, and not replaced by null, which is "never"."""
    message = Subscribe(acknowledge_within=seconds)
    decoded = decode_request(encode(message))
    assert isinstance(decoded, Subscribe)
    assert repr(seconds) == repr(decoded.acknowledge_within)  # NaN is not equal to itself
    with pytest.raises(MalformedMessage, match="JSON"):
        encode(message, WireFormat.JSON)


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("kind", CONCRETE)
def test_errors_travel(kind: type[IoasidError], wire_format: WireFormat) -> None:
    """A refusal says all that the error says, and makes an error of the same type and facts."""
    error = kind(**facts(kind))
    refused = refusal_of(error)
    assert (kind.__name__, error.code, error.message) == (
        refused.error,
        refused.code,
        refused.message,
    )
    again = decode_output(encode(refused, wire_format), wire_format)
    assert isinstance(again, Refused)
    made = error_of(again)
    assert (kind, facts(kind), str(error)) == (
        type(made),
        {each: getattr(made, each) for each in facts(kind)},
        str(made),
    )


@pytest.mark.parametrize(
    "refused",
    [
        Refused("Nothing", "ENOENT", "", {}),
        Refused("Exception", "ENOENT", "", {}),
        Refused("__doc__", "ENOENT", "", {}),
        Refused("define", "ENOENT", "", {}),
        Refused(10**5000, "ENOENT", "", {}),  # type: ignore[arg-type]
        Refused([], "ENOENT", "", {}),  # type: ignore[arg-type]
        Refused("UnknownToken", "ENOENT", "", []),  # type: ignore[arg-type]
        Refused("UnknownToken", "ENOENT", "", {}),
        Refused("UnknownToken", "ENOENT", "", {"token": 7}),
        Refused("UnknownToken", "ENOENT", "", {"token": "x", "more": 1}),
        Refused("NotOfThisSet", "EACCES", "", {"ioasid": 1, "sid": "x"}),
        Refused("NotOfThisSet", "EACCES", "", {"ioasid": 1, "sid": True}),
    ],
    ids=lambda each: f"{type(each.error).__name__}-{len(each.facts)}",
)
def test_refusals_of_nothing(refused: Refused) -> None:
    """EBADMSG: a refusal that names no error, or whose facts are not its own."""
    with pytest.raises(MalformedMessage):
        error_of(refused)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotOfThisSet(1, 2), "EACCES"),
        (UnknownToken("x"), "ENOENT"),
        (WouldDeadlock("kvm", 1, "it waits"), "EDEADLK"),
    ],
)
def test_codes_travel(error: IoasidError, code: str) -> None:
    """A peer in another language reads the errno's name."""
    assert code == json.loads(encode(refusal_of(error), WireFormat.JSON))["code"]


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_conversation(wire_format: WireFormat) -> None:
    """A whole exchange may go over a wire; what arrives is what was sent."""
    driver = Driver()
    for request in (AllocSet("vm-1", 5), Alloc(0), Find(1), TakeStatistics()):
        arrived = decode_request(encode(request, wire_format), wire_format)
        reply = driver.ask(arrived)
        assert reply is not None
        assert reply == decode_output(encode(reply, wire_format), wire_format)
