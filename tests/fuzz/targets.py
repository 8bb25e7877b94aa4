"""The doors that anything may come to: the decoders, a socket, the core, and `restore`."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, get_args

import msgspec

from ioasid.core import (
    Allocator,
    Answer,
    Expel,
    MalformedMessage,
    Message,
    Request,
    Snapshot,
    SuspendAll,
    Tick,
    WireFormat,
    decode_output,
    decode_request,
    decode_snapshot,
    encode,
)
from ioasid.service import (
    Answered,
    Ask,
    ClientConnection,
    Connection,
    GiveUp,
    Goodbye,
    Hello,
    Narrow,
    Narrowed,
    Part,
    ServerConnection,
    Welcome,
)
from ioasid.testing import CheckedAllocator, check_state
from tests.core.examples import OUTPUTS, REQUESTS
from tests.fuzz import bursts
from tests.fuzz.values import (
    FOREIGN_VALUES,
    PIECES,
    WIRE_VALUES,
    TreeDamage,
    damage_bytes,
    pack,
    same,
    tree,
)
from tests.fuzz.world import FIELDS, World
from tests.fuzz.world import REQUESTS as REQUEST_TYPES

Decoder = Callable[[bytes, WireFormat], Message]
FORMATS: Final = tuple(WireFormat)
DECODERS: Final[tuple[Decoder, ...]] = (decode_request, decode_output, decode_snapshot)


class Target:
    """One door. A round makes one of these with a seeded random generator and runs its cases."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.shown = ""
        """The case under way, for people."""

    def case(self) -> str:
        """Run one case; returns what it came to, and raises whatever should not happen."""
        raise NotImplementedError


def show(*values: object) -> str:
    """Values as text, whatever they are, and not for ever."""
    shown = []
    for value in values:
        try:
            shown.append(repr(value))
        except Exception:  # noqa: BLE001 - a stranger's repr may raise anything
            shown.append(f"a {type(value).__name__} without a repr")
    text = ", ".join(shown)
    return text if len(text) <= 4000 else f"{text[:4000]}... ({len(text)} characters)"


class Decoding(Target):
    """Any bytes into the decoders: a message that survives a round trip, or MalformedMessage."""

    def __init__(self, choose: random.Random) -> None:
        super().__init__(choose)
        messages: dict[Decoder, Sequence[Message]] = {
            decode_request: REQUESTS,
            decode_output: OUTPUTS,
            decode_snapshot: [World(choose).run(100).core.snapshot() for _ in range(2)],
        }
        self.examples = {
            (decode, wire_format): [pack(tree(each), wire_format) for each in found]
            for decode, found in messages.items()
            for wire_format in FORMATS
        }

    def case(self) -> str:
        """Decode some bytes."""
        wire_format = self.choose.choice(FORMATS)
        decode = self.choose.choices(DECODERS, (8, 8, 1))[0]
        data = self.bytes_for(decode, wire_format)
        self.shown = show(decode.__name__, wire_format, data)
        try:
            message = decode(data, wire_format)
        except MalformedMessage:
            return "malformed"
        assert isinstance(message, Message), "a message that is none"
        assert same(message, decode(encode(message, wire_format), wire_format)), "it came back else"
        other = FORMATS[wire_format is FORMATS[0]]
        try:
            elsewhere = encode(message, other)
        except MalformedMessage:
            return "a message of this format only"  # NaN in JSON, or numbers beyond 64 bits
        assert same(message, decode(elsewhere, other)), "it came back else in the other format"
        return "a message"

    def bytes_for(self, decode: Decoder, wire_format: WireFormat) -> bytes:
        """Some bytes: random ones, or those of a message, damaged in one way or another."""
        choose = self.choose
        pieces = PIECES[wire_format]
        data = choose.choice(self.examples[decode, wire_format])
        match choose.choices(("random", "pieces", "bytes", "tree", "twice"), (1, 1, 6, 6, 1))[0]:
            case "random":
                return choose.randbytes(choose.choice((0, 1, 2, 5, 20, 100)))
            case "pieces":
                return b"".join(choose.choices(pieces, k=choose.randrange(1, 6)))
            case "bytes":
                other = choose.choice(choose.choice(tuple(self.examples.values())))
                return damage_bytes(choose, data, other, pieces)
            case "twice":
                return twice(choose, data, wire_format)
            case _:
                value = unpack(data, wire_format)
                TreeDamage(choose, value).run()
                return pack(value, wire_format)


def unpack(data: bytes, wire_format: WireFormat) -> Any:
    """Plain values from a wire format."""
    json = wire_format is WireFormat.JSON
    return msgspec.json.decode(data) if json else msgspec.msgpack.decode(data)


def twice(choose: random.Random, data: bytes, wire_format: WireFormat) -> bytes:
    """A message in which one of its fields stands twice, perhaps with another value."""
    fields = unpack(data, wire_format)
    key = choose.choice(sorted(fields))
    again = pack({key: choose.choice((fields[key], 1, None))}, wire_format)
    if wire_format is WireFormat.JSON:
        return data[:-1] + b"," + again[1:]
    # The first byte of a small map says how many fields it has.
    return bytes((min(data[0] + 1, 0x8F),)) + data[1:] + again[1:]


class Framing(Target):
    """Any bytes over a socket, in any pieces: frames or one error, and the same however cut."""

    def __init__(self, choose: random.Random) -> None:
        super().__init__(choose)
        refusals = [each for each in OUTPUTS if isinstance(each, get_args(Answer))]
        asks: list[Any] = [Ask(each, number, 1) for number, each in enumerate(REQUESTS, 1)]
        answers: list[Any] = [Answered(number, each) for number, each in enumerate(refusals, 1)]
        hellos = [Hello((1, 2), "me", "vm-1"), Narrow("vm-1", ("kvm:",)), GiveUp(2, 1, 1)]
        told = [Welcome(1, "e", True, 5, 5, "driver"), Goodbye("x"), Narrowed(), Expel(1)]
        self.examples = {
            side: [ClientConnection(each).pack(frame) for frame in frames for each in FORMATS]
            for side, frames in (
                (ServerConnection, [*asks, *hellos]),
                (ClientConnection, [*answers, *told, Part(b"\x80", more=False)]),
            )
        }

    def case(self) -> str:
        """Receive some bytes twice, in one piece and in several."""
        choose = self.choose
        side = choose.choice(tuple(self.examples))
        frames = choose.choices(self.examples[side], k=choose.randrange(1, 5))
        data = b"".join(frames)
        if choose.random() < 0.7:
            wire_format = choose.choice(FORMATS)
            other = choose.choice(choose.choice(tuple(self.examples.values())))
            data = damage_bytes(choose, data, other, PIECES[wire_format])
        cuts = sorted(choose.randrange(len(data) + 1) for _ in range(choose.randrange(8)))
        pieces = [data[a:b] for a, b in pairwise((0, *cuts, len(data)))]
        self.shown = show(side.__name__, pieces)
        whole: Connection[Any]
        parts: Connection[Any]
        whole, parts = side(), side()
        found = whole.receive(data)
        again = [frame for piece in pieces for frame in parts.receive(piece)]
        assert repr(found) == repr(again), "other frames in pieces"
        assert repr(whole.error) == repr(parts.error), "another error in pieces"
        assert whole.inside == parts.inside, "more in pieces"
        if whole.error is None:
            return "unfinished" if whole.inside else "frames"
        assert [] == whole.receive(frames[0]), "more after an error"
        return type(whole.error).__name__


class Handling(Target):
    """Any request into a core in any state: a reply, a wait, or a typed error; no harm done."""

    def __init__(self, choose: random.Random) -> None:
        super().__init__(choose)
        self.world = World(choose).run(choose.choice((0, 100, 300)))

    def case(self) -> str:
        """Send one request: a sensible one, a nonsensical one, or a damaged one over a wire."""
        choose = self.choose
        session: Any
        session, request = self.world.request()
        match choose.choices(("sensible", "foreign", "wire", "stranger"), (8, 8, 8, 1))[0]:
            case "foreign":
                request = self.foreign(request)
            case "wire":
                try:
                    request = self.over_a_wire(request)
                except MalformedMessage:
                    return "malformed"
            case "stranger":
                stranger = choose.choice(
                    (*FOREIGN_VALUES, choose.choice(OUTPUTS), choose.choice(REQUEST_TYPES))
                )
                session, request = choose.choice(((stranger, request), (session, stranger)))
            case _:
                pass
        self.shown = show(session, request)
        if choose.random() < 0.05:
            self.world.core.handle(0, Tick(self.world.tables.now + choose.random()))
        return self.world.ask(session, request)

    def foreign(self, request: Request) -> Any:
        """A request, perhaps another, with at least one value that does not belong there."""
        choose = self.choose
        kind: type[Any] = choose.choice((type(request), choose.choice(REQUEST_TYPES)))
        given = {
            name: getattr(request, name, choose.choice(WIRE_VALUES)) for name, _ in FIELDS[kind]
        }
        for name in choose.sample(sorted(given), min(len(given), choose.choice((1, 1, 2)))):
            given[name] = choose.choice(FOREIGN_VALUES)
        return kind(**given)

    def over_a_wire(self, request: Request) -> Request:
        """A request as it arrives, damaged on the way most of the time."""
        choose = self.choose
        wire_format = choose.choice(FORMATS)
        value = tree(request)
        if choose.random() < 0.8:
            TreeDamage(choose, value).run()
        return decode_request(pack(value, wire_format), wire_format)


class Restoring(Target):
    """Any snapshot into `restore`: an allocator whose invariants hold, or MalformedMessage."""

    def __init__(self, choose: random.Random) -> None:
        super().__init__(choose)
        self.examples = [
            pack(tree(World(choose).run(steps).core.snapshot()), WireFormat.MSGPACK)
            for steps in (10, 60, 60, 150, 300)
        ]

    def case(self) -> str:
        """Restore one snapshot, and go on from it to the end if it is accepted."""
        choose = self.choose
        value = unpack(choose.choice(self.examples), WireFormat.MSGPACK)
        TreeDamage(choose, value, plausible=choose.random() < 0.9).run()
        self.shown = show(value)
        try:
            snapshot = decode_snapshot(pack(value, WireFormat.MSGPACK))
        except MalformedMessage:
            return "malformed"
        if takes_too_much(snapshot):
            return "left out: too large to try"
        kind = choose.choice((Allocator, CheckedAllocator))
        try:
            core = kind.restore(snapshot)
        except MalformedMessage:
            return "refused"
        check_state(core)
        assert snapshot == core.snapshot(), "another state than the one of the snapshot"
        assert [] == core.drain(), "a snapshot that wants something done"
        if kind is CheckedAllocator:
            # As in a new process: nobody has anything in hand, and all begin with a Resync.
            core.handle(0, SuspendAll())
            core.drain()
        world = World(choose, core).run(choose.choice((0, 5, 40)))
        world.finish()
        return "an allocator"


class Bursting(Target):
    """Bursts of frames over a socket: the service lives, and nobody is told what is not theirs."""

    def case(self) -> str:
        """Run one life of a service."""
        self.shown = "a life; what is sent is the same again, and not when"
        return bursts.run(self.choose)


def takes_too_much(snapshot: Snapshot) -> bool:
    """Whether it has more IDs than there is time for."""
    ranges = [each for owner in snapshot.sets for each in owner.ranges]
    return any(each.last - each.first > 100_000 for each in ranges)


TARGETS: Final[dict[str, type[Target]]] = {
    "decode": Decoding,
    "frames": Framing,
    "handle": Handling,
    "restore": Restoring,
    "bursts": Bursting,
}
