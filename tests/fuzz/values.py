"""Values that nobody should send, and ways to damage what somebody sent."""

import math
import random
from copy import deepcopy
from typing import Any, Final

import msgspec

from ioasid.core import EventKind, Message, Priority, TokenType, WireFormat

NUMBERS: Final[tuple[int, ...]] = (
    *range(-3, 10),
    *(sign * 2**power + off for power in (8, 16, 20, 31) for off in (-1, 0, 1) for sign in (1, -1)),
    *(2**32 + off for off in (-2, -1, 0, 1)),
    *(2**53 + off for off in (-1, 1)),
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
)
"""Around every bound there is; all of them have a form in msgpack."""

FLOATS: Final = (0.0, -0.0, 0.5, 1.0, -1.5, 5e-324, 1e300, math.inf, -math.inf, math.nan)

STRINGS: Final = (
    *("", "\x00", "0", "vm-1", "kvm", "None", "ACTIVE", "BIND", "Alloc", "\U0010ffff"),
    *("\N{SNOWMAN}" * 85, "\N{SNOWMAN}" * 86, "x" * 255, "x" * 256, "x" * 4096, "x" * 4097),
)

WIRE_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, *NUMBERS, *FLOATS, *STRINGS, b"", b"\xff\x00"),
    *([], [None], [[]], {}, {"": None}, {"type": "Alloc", "sid": 0}),
)
"""What a wire can carry of any type, in place of what is expected."""


class Hostile:
    """An object of which nothing may be asked."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("the core asked a stranger")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = __bool__ = __len__ = __iter__ = __index__ = __int__ = __repr__ = __str__ = _refuse


class Number(int):
    """A number that is no plain one."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        """Be equal to everything."""
        return True


class Text(str):
    """A string that is no plain one."""

    __slots__ = ()

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        """Be equal to everything."""
        return True


FOREIGN_VALUES: Final[tuple[Any, ...]] = (
    *(*WIRE_VALUES, 2**64, -(2**63) - 1, 10**30, 10**5000, "\ud800", "x\udfff", complex(1, 1)),
    *((), frozenset(), frozenset(("BIND",)), frozenset((EventKind.BIND, 1)), {EventKind.FREE}),
    *(range(3), object(), int, Hostile(), Number(1), Text("vm-1")),
    *(EventKind.RECLAIM, EventKind.ALLOC, Priority.IOMMU, TokenType.NULL, WireFormat.JSON),
)
"""What a caller in the same process can put into a message besides."""

MSGPACK_PIECES: Final = (
    *(bytes((head,)) for head in range(0xC0, 0xE0)),
    # Lengths of 16 and 32 bits that nothing follows, extensions, NaN, infinity, the last integers.
    *map(bytes.fromhex, ("dfffffffff", "ddffffffff", "dbffffffff", "c6ffffffff", "c9ffffffff01")),
    *map(bytes.fromhex, ("deffff", "dcffff", "d6ff00000000", "d40000", "a3eda080")),
    *map(bytes.fromhex, ("cb7ff8000000000000", "cb7ff0000000000000")),
    *map(bytes.fromhex, ("cfffffffffffffffff", "d38000000000000000")),
    *(b"\x91" * 2000, b"\x81\xa1a" * 2000),
)

JSON_PIECES: Final = (
    *b"null true NaN Infinity -Infinity 1e999 -1e999 1e308 -0 -0.0 00 0x1 1.".split(),
    *b"18446744073709551616 -9223372036854775809 { } [ ] , : {} [] /**/".split(),
    *(b"9" * 400, b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b'"type":"Alloc",', b'"sid":1,'),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xed\xa0\x80"', b'"\xff"', b'"', b"\\"),
    b"\xef\xbb\xbf",
)

PIECES: Final = {WireFormat.MSGPACK: MSGPACK_PIECES, WireFormat.JSON: JSON_PIECES}


def same(left: Any, right: Any) -> bool:
    """Whether two messages are equal, where NaN is equal to itself."""
    if type(left) is float and type(right) is float:
        return left == right or (left != left and right != right)  # noqa: PLR0124
    if isinstance(left, msgspec.Struct):
        return type(left) is type(right) and all(
            same(getattr(left, name), getattr(right, name)) for name in left.__struct_fields__
        )
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


def tree(message: Message) -> Any:
    """A message as plain dicts and lists, the same in every process."""
    return _sort_kinds(msgspec.to_builtins(message, str_keys=True, builtin_types=(bytes,)))


def _sort_kinds(value: Any) -> Any:
    # A set of kinds has no order of its own.
    if isinstance(value, dict):
        return {
            key: sorted(each) if key == "kinds" else _sort_kinds(each)
            for key, each in value.items()
        }
    return [_sort_kinds(each) for each in value] if isinstance(value, list | tuple) else value


def pack(value: Any, wire_format: WireFormat) -> bytes:
    """Plain values in a wire format."""
    json = wire_format is WireFormat.JSON
    return msgspec.json.encode(value) if json else msgspec.msgpack.encode(value)


# -- damage -----------------------------------------------------------------------------------


def damage_bytes(
    choose: random.Random, data: bytes, other: bytes, pieces: tuple[bytes, ...]
) -> bytes:
    """Bytes with some flipped, missing, doubled, from elsewhere, or exchanged for a bad piece."""
    changed = bytearray(data)
    for _ in range(choose.choice((1, 1, 1, 2, 3, 8))):
        at = choose.randrange(len(changed) + 1)
        end = min(len(changed), at + choose.choice((1, 1, 2, 4, 16, 64)))
        match choose.randrange(9):
            case 0 if at < len(changed):
                changed[at] ^= 1 << choose.randrange(8)
            case 1 if at < len(changed):
                changed[at] = choose.randrange(256)
            case 2:
                del changed[at:end]
            case 3:
                changed[at:at] = changed[at:end]
            case 4:
                changed[at:at] = choose.randbytes(choose.choice((1, 2, 8)))
            case 5:
                del changed[at:]
            case 6:
                changed[at:] = other[choose.randrange(len(other) + 1) :]
            case 7:
                changed[at:at] = choose.choice(pieces)
            case _:
                changed[at:end] = choose.choice(pieces)
    return bytes(changed)


class TreeDamage:
    """Changes to a tree of dicts and lists, in place.

    `plausible` ones keep types and keys as they are, so that what comes of it still decodes.
    """

    def __init__(self, choose: random.Random, value: Any, *, plausible: bool = False) -> None:
        self.choose = choose
        self.value = value
        self.plausible = plausible
        self.spots: list[tuple[Any, Any]] = []

    def run(self) -> None:
        """Change one to three spots."""
        operations = (
            *(self.replace, self.nudge, self.nudge, self.nudge),
            *(self.swap, self.swap, self.remove, self.double, self.rotate),
        )
        for _ in range(self.choose.choice((1, 1, 1, 2, 3))):
            self.spots.clear()
            self.collect(self.value)
            if not self.spots:
                return
            container, key = self.choose.choice(self.spots)
            self.choose.choice(operations)(container, key)

    def collect(self, value: Any) -> None:
        """Find every spot: each value of a dict, each element of a list."""
        if isinstance(value, dict):
            found: Any = value.items()
        elif isinstance(value, list):
            found = enumerate(value)
        else:
            return
        for key, each in found:
            self.spots.append((value, key))
            if isinstance(each, dict | list):
                self.collect(each)

    def replace(self, container: Any, key: Any) -> None:
        """Put a bad value in the place of another."""
        values = WIRE_VALUES
        if self.plausible:
            kind = type(container[key])
            others = (None,) if isinstance(container, dict) else ()
            values = (*(each for each in values if type(each) is kind), *others) or (None,)
        container[key] = deepcopy(self.choose.choice(values))

    def nudge(self, container: Any, key: Any) -> None:
        """Put something near: the next number, another bit or truth value, another of the type."""
        choose, value = self.choose, container[key]
        if type(value) is bool:
            container[key] = not value
        elif type(value) is int and choose.random() < 0.5:
            container[key] = min(max(value + choose.choice((-1, 1)), -(2**63)), 2**64 - 1)
        elif type(value) is bytes and value and choose.random() < 0.5:
            bits = int.from_bytes(value, "little") ^ 1 << choose.randrange(8 * len(value))
            container[key] = bits.to_bytes(len(value), "little")
        else:
            alike = [spot for spot in self.spots if type(spot[0][spot[1]]) is type(value)]
            other, place = choose.choice(alike)
            container[key] = deepcopy(other[place])

    def swap(self, container: Any, key: Any) -> None:
        """Exchange two values."""
        other, place = self.choose.choice(self.spots)
        one, two = container[key], other[place]
        if isinstance(one, dict | list) or isinstance(two, dict | list):
            return
        if not self.plausible or type(one) is type(two):
            container[key], other[place] = two, one

    def remove(self, container: Any, key: Any) -> None:
        """Leave a value out."""
        if not self.plausible or isinstance(container, list):
            del container[key]

    def double(self, container: Any, key: Any) -> None:
        """Put a value in twice."""
        choose, value = self.choose, deepcopy(container[key])
        if isinstance(container, list):
            container.insert(choose.randrange(len(container) + 1), value)
        elif not self.plausible:
            container[choose.choice(("type", "surprise", "", "sid"))] = value

    def rotate(self, container: Any, key: Any) -> None:
        """Change the order of a list."""
        value = container[key]
        if isinstance(value, list) and value:
            value.append(value.pop(0))
