"""The sans-I/O connection: bytes to frames and back, however they are cut, and what is no frame."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioasid.core import (
    Alloc,
    Allocated,
    Deliver,
    End,
    Event,
    EventKind,
    Free,
    Ioasid,
    IoasidState,
    Listing,
    ListSet,
    LiveIoasid,
    MalformedMessage,
    Refused,
    Resync,
    Subscribe,
    WireFormat,
    Withdraw,
    refusal_of,
)
from ioasid.service import (
    MAX_FRAME,
    Answered,
    Ask,
    BadAsk,
    ClientConnection,
    GiveUp,
    Goodbye,
    Hello,
    Narrow,
    ProtocolViolated,
    ServerConnection,
    TooLarge,
    UnknownRequest,
    Welcome,
)
from tests.core.play import SETTINGS

FROM_CLIENT = [
    Narrow("vm-1", ("kvm:",)),
    Hello((1, 2), "name", None),
    Ask(Alloc(1, data="ä\n{"), 1, 7),
    Ask(Subscribe(kinds=frozenset({EventKind.BIND})), 2),
    Ask(Free(3, wait=True), 3, 2**63),
    GiveUp(4, 3, 7),
]
FROM_SERVER = [
    Welcome(1, "epoch", True, 5, 5, "operator"),
    Answered(1, Allocated(1, 5)),
    Answered(2, refusal_of(UnknownRequest("Nap"))),
    Deliver((4,), Event(1, EventKind.FREE, 2, 3, data="{\n")),
    Deliver((4,), Resync(2, (LiveIoasid(1, 2, None, IoasidState.ACTIVE, None, 5, 6),))),
    Withdraw(4, None),
    End(4, True),
    Goodbye("was shut down"),
]
FORMATS = list(WireFormat)


def written(frames: list[Any], wire_format: WireFormat) -> bytes:
    """Frames as a client, or a server that was asked so, writes them."""
    connection: Any = ClientConnection(wire_format)
    return b"".join(map(connection.pack, frames))


def received(connection: Any, pieces: list[bytes]) -> list[Any]:
    """The frames in bytes that come in pieces."""
    return [frame for piece in pieces for frame in connection.receive(piece)]


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize(
    ("kind", "frames"), [(ServerConnection, FROM_CLIENT), (ClientConnection, FROM_SERVER)]
)
def test_frames_cut_at_every_byte(kind: Any, frames: list[Any], wire_format: WireFormat) -> None:
    """Wherever two pieces meet, and in single bytes, the same frames come out."""
    data = written(frames, wire_format)
    for cut in range(len(data) + 1):
        connection = kind()
        assert frames == received(connection, [data[:cut], data[cut:]])
        assert (None, False) == (connection.error, connection.inside)
    single = [bytes([each]) for each in data]
    assert frames == received(kind(), single)


@pytest.mark.parametrize("seed", range(20))
def test_random_pieces_of_both_forms(seed: int) -> None:
    """Msgpack and JSON may alternate, cut anywhere, with blank lines between."""
    rng = random.Random(seed)
    frames = [rng.choice(FROM_CLIENT) for _ in range(50)]
    data = b"".join(
        written([frame], rng.choice(FORMATS)) + rng.choice([b"", b"\n", b"\r\n"])
        for frame in frames
    )
    pieces = []
    while data:
        size = rng.choice((1, 2, 3, 7, 50, 1000))
        pieces.append(data[:size])
        data = data[size:]
    assert frames == received(ServerConnection(), pieces)


def test_a_server_answers_in_the_form_it_was_asked_in() -> None:
    """Whoever sends JSON gets a line, whoever sends msgpack a frame."""
    server = ServerConnection()
    for wire_format in (*FORMATS, *FORMATS):
        server.receive(written([FROM_CLIENT[2]], wire_format))
        data = server.pack(FROM_SERVER[1])
        assert (data[:1] == b"{") is (wire_format is WireFormat.JSON)
        assert [FROM_SERVER[1]] == ClientConnection().receive(data)


def test_a_frame_by_the_page() -> None:
    """A frame is what the reference says: a length, and a map that names its type."""
    data = ClientConnection().pack(Ask(ListSet(5), 9, 2))
    assert len(data) - 4 == int.from_bytes(data[:4], "big")
    assert {
        "type": "Ask",
        "id": 9,
        "session": 2,
        "request": {"type": "ListSet", "sid": 5},
    } == msgspec.msgpack.decode(data[4:])
    line = ClientConnection(WireFormat.JSON).pack(Ask(ListSet(5), 9, 2))
    assert b"\n" == line[-1:]
    assert msgspec.msgpack.decode(data[4:]) == json.loads(line)


def test_an_id_crosses_as_its_number() -> None:
    """What remembers its generation is a number on a wire."""
    data = ClientConnection().pack(Ask(Alloc(1, min=Ioasid(5, 9)), 1, 1))
    assert [Ask(Alloc(1, min=5), 1, 1)] == ServerConnection().receive(data)


# What is newer


def sent(frame: dict[str, Any], wire_format: WireFormat) -> bytes:
    """A frame of any fields."""
    if wire_format is WireFormat.JSON:
        return line(**frame)
    data = msgspec.msgpack.encode(frame)
    return len(data).to_bytes(4, "big") + data


def line(**fields: Any) -> bytes:
    """A line of JSON."""
    return json.dumps(fields).encode() + b"\n"


def test_unknown_fields_from_a_client_are_ignored() -> None:
    """A newer client may say more, in the frame and in the request."""
    server = ServerConnection()
    request = {"type": "Alloc", "sid": 4, "colour": "red", "min": 2}
    assert [Ask(Alloc(4, min=2), 5)] == server.receive(
        line(type="Ask", id=5, request=request, shape={"a": 1})
    )
    kinds = {"type": "Subscribe", "kinds": ["BIND"], "priority": "CPU", "new": None}
    (ask,) = server.receive(line(type="Ask", id=6, request=kinds))
    assert isinstance(ask, Ask)
    assert frozenset({EventKind.BIND}) == getattr(ask.request, "kinds", None)


@pytest.mark.parametrize("wire_format", FORMATS)
def test_unknown_fields_from_a_server_are_ignored(wire_format: WireFormat) -> None:
    """A newer server may say more: in answers, in rows of them, and at the end of arrays."""
    live = [1, 2, None, "ACTIVE", None, 5, 6, "newer"]
    frames = [
        {
            "type": "Answered",
            "id": 3,
            "new": 1,
            "answer": {"type": "Allocated", "ioasid": 4, "x": 0},
        },
        {"type": "Answered", "id": 4, "answer": {"type": "Listing", "sid": 2, "ioasids": [live]}},
        {
            "type": "Deliver",
            "subscriptions": [5],
            "message": {"type": "Resync", "seq": 1, "y": 2, "ioasids": [live]},
        },
    ]
    coder: Any = msgspec.json if wire_format is WireFormat.JSON else msgspec.msgpack
    expected = LiveIoasid(1, 2, None, IoasidState.ACTIVE, None, 5, 6)
    encoded = [coder.encode(each) for each in frames]
    data = (
        b"".join(each + b"\n" for each in encoded)
        if wire_format is WireFormat.JSON
        else b"".join(len(each).to_bytes(4, "big") + each for each in encoded)
    )
    assert [
        Answered(3, Allocated(4)),
        Answered(4, Listing(2, (expected,))),
        Deliver((5,), Resync(1, (expected,))),
    ] == ClientConnection().receive(data)


def test_an_unknown_request_is_refused_by_name() -> None:
    """Its asker is told, and the connection goes on."""
    server = ServerConnection()
    frames = server.receive(
        line(type="Ask", id=5, request={"type": "Nap", "for": 5})
        + line(type="Ask", id=6, request={"type": "Alloc", "sid": 1})
    )
    bad, good = frames
    assert isinstance(bad, BadAsk)
    assert isinstance(bad.error, UnknownRequest)
    assert (5, "Nap") == (bad.id, bad.error.name)
    assert (Ask(Alloc(1), 6), None) == (good, server.error)


def test_an_unknown_answer_is_one_askers_matter() -> None:
    """An answer that a client does not understand fails that request alone."""
    client = ClientConnection()
    (frame,) = client.receive(line(type="Answered", id=5, answer={"type": "Poem", "lines": 4}))
    assert isinstance(frame, Answered)
    assert isinstance(frame.answer, Refused)
    assert (5, "MalformedMessage") == (frame.id, frame.answer.error)
    assert None is client.error


def test_a_field_of_the_wrong_type_is_for_the_allocator_to_refuse() -> None:
    """What a client says reaches the check that names the argument, as it was said."""
    server = ServerConnection()
    for value in (True, 1.5, "1", None, [1], {"a": 1}):
        (ask,) = server.receive(line(type="Ask", id=5, request={"type": "Alloc", "sid": value}))
        assert isinstance(ask, Ask)
        assert value == getattr(ask.request, "sid", None)
        assert type(value) is type(getattr(ask.request, "sid", None))


@pytest.mark.parametrize(
    "request_",
    [None, 5, [], "Alloc", {}, {"type": 5}, {"type": "Alloc"}, {"sid": 1}],
)
def test_what_is_no_request(request_: object) -> None:
    """It is refused to its asker, and the connection goes on."""
    server = ServerConnection()
    (bad,) = server.receive(line(type="Ask", id=5, request=request_))
    assert isinstance(bad, BadAsk)
    assert isinstance(bad.error, MalformedMessage)
    assert (5, None) == (bad.id, server.error)


# What is wrong

BROKEN = {
    "a length of 4 GiB": b"\xff\xff\xff\xff",
    "a length too large by one": (MAX_FRAME + 1).to_bytes(4, "big"),
    "a byte that begins nothing": b"x",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "a frame of nothing": b"\0\0\0\0",
    "no msgpack": b"\0\0\0\1\xc1",
    "msgpack with more behind": b"\0\0\0\2\x01\x01",
    "no map": b"\0\0\0\1\x05",
    "a map of numbers": b"\0\0\0\3\x81\x01\x01",
    "no JSON": b"{\n",
    "a line of two": b"{}{}\n",
    "a line without a type": b"{}\n",
    "an unknown frame": line(type="Wave"),
    "a frame of the other side": line(type="Goodbye", reason=""),
    "a Hello without versions": line(type="Hello"),
    "a Hello with wrong versions": line(type="Hello", versions="1"),
    "an id of 0": line(type="Ask", id=0, request={"type": "Nap"}),
    "an id that is no number": line(type="Ask", id="1", request={"type": "Nap"}),
    "a session that is no number": line(type="Ask", id=1, session=1.5, request={"type": "Nap"}),
    "a nest": b'{"a":' * 5000 + b"\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_protocol(name: str) -> None:
    """It is said what is wrong, what came before counts, and nothing is taken any more."""
    good = written([FROM_CLIENT[1]], WireFormat.MSGPACK)
    data = good + BROKEN[name]
    for cut in (0, len(good), len(good) + 1, len(data)):
        server = ServerConnection()
        assert [FROM_CLIENT[1]] == received(server, [data[:cut], data[cut:]])
        assert isinstance(server.error, ProtocolViolated | TooLarge)
        assert [] == server.receive(good)
        assert not server.inside


def test_what_is_not_valid_is_named() -> None:
    """It is said of which form it is, and where it goes wrong."""
    for data, said in (
        (b"{x}\n", "a frame that is not valid JSON: object keys must be strings (byte 1);"),
        (BROKEN["a nest"], "a frame that is not valid JSON;"),
        (BROKEN["no msgpack"], "a frame that is not valid msgpack: invalid opcode"),
    ):
        server = ServerConnection()
        assert [] == server.receive(data)
        assert said in str(server.error)


NUMBERS = [
    {"type": "Ask", "request": {"type": "TakeStatistics"}, "id": None, "session": None},
    {"type": "GiveUp", "id": 1, "of": 1, "session": None},
]


@pytest.mark.parametrize("frame", NUMBERS, ids=["Ask", "GiveUp"])
@pytest.mark.parametrize("wire_format", list(WireFormat))
def test_what_numbers_are(frame: dict[str, Any], wire_format: WireFormat) -> None:
    """Whole, in 1..2^64-1, and a session may be nobody's, 0; any other ends the connection."""

    def said(field: str, value: object) -> tuple[ServerConnection, list[Any]]:
        server = ServerConnection()
        return server, server.receive(sent(frame | {field: value}, wire_format))

    for field in frame.keys() - {"type", "request"}:
        for number in (1, 2**63 - 1, 2**63, 2**64 - 1):
            server, (found,) = said(field, number)
            assert (None, number) == (server.error, getattr(found, field))
        if field == "session":
            server, (found,) = said(field, 0)
            assert (None, 0) == (server.error, found.session)
        wrong: list[object] = [-1, -(2**63), True, 1.0, 1.5, 2.0**64, "1", [1]]
        if field != "session":
            wrong.append(0)
        if wire_format is WireFormat.JSON:
            # No msgpack has them.
            wrong += [2**64, 2**70, -(2**63) - 1]
        for value in wrong:
            server, frames = said(field, value)
            assert [] == frames
            assert isinstance(server.error, ProtocolViolated)
            assert f"{field} " in server.error.reason


def test_a_line_without_an_end_is_refused_at_the_bound() -> None:
    """A line is kept up to 1 MiB, not more, and looked through once."""
    server = ServerConnection()
    for _ in range(MAX_FRAME // 4096):
        assert [] == server.receive(b"{" + b" " * 4095)
        assert None is server.error
    server.receive(b"  ")
    assert isinstance(server.error, TooLarge)
    assert (MAX_FRAME + 2, MAX_FRAME) == (server.error.size, server.error.limit)


def test_what_a_client_must_not_send_has_no_form() -> None:
    """A frame that is too large, or holds what has no form, is refused before it is sent."""
    client = ClientConnection()
    with pytest.raises(TooLarge):
        client.pack(Ask(Alloc(1, data="x" * MAX_FRAME), 1))
    for value in (object(), 2**64, "\ud800"):
        with pytest.raises(MalformedMessage):
            client.pack(Ask(Alloc(1, data=value), 1))  # type: ignore[arg-type]


# Large frames


@pytest.mark.parametrize("wire_format", FORMATS)
def test_a_large_answer_comes_whole(wire_format: WireFormat) -> None:
    """What is larger than a frame comes in parts, none larger than one, or as a long line."""
    listing = Listing(
        1,
        tuple(LiveIoasid(n, 1, "vm-1", IoasidState.ACTIVE, n, "x" * 50, n) for n in range(30_000)),
    )
    server = ServerConnection()
    server.receive(written([FROM_CLIENT[2]], wire_format))
    data = server.pack(Answered(5, listing)) + server.pack(Goodbye("x"))
    assert len(data) > 2 * MAX_FRAME
    if wire_format is WireFormat.MSGPACK:
        start = sizes = 0
        while start < len(data):
            size = int.from_bytes(data[start : start + 4], "big")
            assert size <= MAX_FRAME
            start += 4 + size
            sizes += 1
        assert sizes > 3
    client = ClientConnection()
    frames = received(client, [data[at : at + 65536] for at in range(0, len(data), 65536)])
    assert len(frames) == 2
    is_equal = Answered(5, listing) == frames[0]
    assert is_equal
    assert Goodbye("x") == frames[1]


# Anything


@SETTINGS
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_do_no_harm(pieces: list[bytes]) -> None:
    """Whatever comes, in whatever pieces, is frames or one error, and the same as in one piece."""
    for kind in (ServerConnection, ClientConnection):
        one, many = kind(), kind()
        frames = one.receive(b"".join(pieces))
        assert str(frames) == str(received(many, pieces))
        assert (one.error is None) is (many.error is None)


@SETTINGS
@given(st.data())
def test_any_map_does_no_harm(data: st.DataObject) -> None:
    """Whatever stands where a frame belongs is taken, refused or breaks the protocol."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=6,
    )
    names = st.sampled_from(
        ["Ask", "Hello", "Narrow", "GiveUp", "Answered", "Deliver", "Alloc", "Explain"]
    )
    request = data.draw(
        st.fixed_dictionaries({"type": names | values, "ioasid": values, "sid": values})
    )
    found = data.draw(
        st.fixed_dictionaries(
            {"type": names | values},
            optional={
                "id": values,
                "session": values,
                "request": st.just(request),
                "versions": values,
            },
        )
    )
    encoded = msgspec.msgpack.encode(found)
    framed = len(encoded).to_bytes(4, "big") + encoded
    for kind in (ServerConnection, ClientConnection):
        connection = kind()
        frames = connection.receive(framed)
        assert 1 == len(frames) + (connection.error is not None)
