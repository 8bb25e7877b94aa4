"""The annotations of messages, at the door of an actor."""

import abc
import collections.abc
import dataclasses
import enum
import os
import pathlib
import sys
import types
import typing
from collections import namedtuple
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    Never,
    NewType,
    NotRequired,
    Optional,
    Protocol,
    Required,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Union,
    runtime_checkable,
)

import anyio
import attrs
import msgspec
import pytest
from msgspec import Meta

from ioasid.actors import Actor, open_allocator
from ioasid.core import InvalidArgument, MalformedMessage, Message
from tests.fuzz.values import FOREIGN_VALUES, Hostile, Number, Text

if TYPE_CHECKING:
    from decimal import Decimal as Unseen

pytestmark = pytest.mark.anyio


class Sink(Actor):
    """An actor that takes whatever passes its door."""

    async def on_request(self, message: Message) -> Any:
        """Answer the first field."""
        return getattr(message, message.__struct_fields__[0])


@asynccontextmanager
async def running() -> AsyncIterator[Sink]:
    """Run a sink beside an allocator."""
    async with open_allocator(capacity=16) as host, anyio.create_task_group() as tasks:
        sink = Sink("sink")
        await tasks.start(sink.run, host)
        yield sink
        tasks.cancel_scope.cancel()


def with_field(annotation: Any) -> Any:
    """A class of messages with one field."""
    return msgspec.defstruct("Sent", [("x", annotation)], bases=(Message,), frozen=True)


# -- what people annotate with --------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    A = "a"


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> int: ...


class Square(Shape):
    def area(self) -> int:
        return 1


@runtime_checkable
class Closes(Protocol):
    def close(self) -> None: ...


class Unchecked(Protocol):
    def close(self) -> None: ...


class Pair(NamedTuple):
    left: int
    right: int


class Movie(TypedDict):
    title: str
    year: "NotRequired[int]"


class Loose(TypedDict, total=False):
    title: Required[str]
    year: int


class Torn(TypedDict):
    title: "Missing"  # type: ignore[name-defined] # noqa: F821


@attrs.frozen
class Point:
    x: int


@dataclasses.dataclass
class Record:
    x: int


class Plain(msgspec.Struct):
    x: int


class PlainInt(int):
    """Changes nothing of an int."""


class Nested(Message, frozen=True):
    inner: "Nested | None" = None


class Refuses(type):
    """A metaclass that raises whatever it is asked."""

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("never ask")

    __subclasscheck__ = __instancecheck__


class Strange(metaclass=Refuses):
    pass


class RefusesAll(Refuses):
    """And has neither an equal, a hash nor a name."""

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("never compare")

    def __hash__(cls) -> int:
        raise RuntimeError("never hash")

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("never name")


class Stranger(metaclass=RefusesAll):
    pass


class Liar:
    """Claims a class that it is not of."""

    def __init__(self, claimed: Any) -> None:
        self.claimed = claimed

    @property
    def __class__(self) -> Any:
        if self.claimed is None:
            raise RuntimeError("never ask")
        return self.claimed

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


T = TypeVar("T")
Bound = TypeVar("Bound", bound=int)
Either = TypeVar("Either", int, str)
Looping = TypeVar("Looping", bound="Iterable[Looping]")  # type: ignore[valid-type]
UserId = NewType("UserId", int)
Names: TypeAlias = "list[str]"
Numbers: TypeAlias = list[int]
Deep: Any = types.GenericAlias(list, ("Deep",))


class Box(Generic[T]):
    pass


class Meets:
    def close(self) -> None: ...


def deep(levels: int) -> Any:
    """An annotation of many levels."""
    hint: Any = int
    for _ in range(levels):
        hint = list[hint]
    return hint


NOTHING: Final = object()
NUMBERS: Final = (0, -(2**63), 2**64 - 1)
BAD_INTS: Final[tuple[Any, ...]] = (
    True,
    1.0,
    "1",
    None,
    b"1",
    [],
    Number(1),
    Hostile(),
    2**64,
    PlainInt(2**64),
)

CASES: Final[tuple[tuple[Any, tuple[Any, ...], tuple[Any, ...], str], ...]] = (
    (int, (*NUMBERS, Level.LOW, PlainInt(5)), BAD_INTS[:-2], "int"),
    (str, ("", Word.A), (b"", 1, None, Text("a"), Hostile(), Liar(str), Liar(None)), "str"),
    (bytes, (b"",), ("", bytearray(), memoryview(b"")), "bytes"),
    (bool, (True, False), (0, 1, None, "yes"), "bool"),
    (float, (1, 1.5, float("nan"), Level.LOW), (True, "1", None, 1j, Number(1)), "float"),
    (complex, (1, 1.5, 1j), (True, "1"), "complex"),
    (None, (None,), (0, False, ""), "None"),
    (Any, (None, 1, [], Hostile(), Stranger()), (), ""),
    (object, (None, 1, [], Hostile(), Stranger()), (), ""),
    (Optional[int], (1, None), (True, "1"), "int or None"),  # noqa: UP045
    (int | None, (1, None), (True, "1", Number(1)), "int or None"),
    (Union[int, str, None], (1, "a", None), (1.0, b""), "int or str or None"),  # noqa: UP007
    (float | bool, (1, 1.0, True), ("",), "float or bool"),
    (int | Any, (1, "a", []), (), ""),
    (Literal["a", "b"], ("a",), ("c", b"a", Text("a"), Word.A, Hostile()), "Literal['a', 'b']"),
    (
        Literal[1, b"x", True, None, Color.RED, "in"],
        (1, b"x", True, None, Color.RED, "in"),
        (1.0, 2, False, Color.BLUE, Level.LOW, Number(1)),
        "Literal[1, b'x', True, None, Color.RED, 'in']",
    ),
    (Literal[1], (1,), (True, 1.0), "Literal[1]"),
    (Optional[Literal["a"]], ("a", None), ("b",), "Literal['a'] or None"),  # noqa: UP045
    (Color, (Color.RED,), (1, "RED", None), "Color"),
    (list[int], ([], [1], ["contents"]), ((), None, "", Hostile()), "list[int]"),
    (typing.List, ([],), ((),), "list"),  # noqa: UP006
    (dict[str, int], ({}, {1: 2}), ([], None), "dict[str, int]"),
    (set[int], (set(),), (frozenset(), []), "set[int]"),
    (Sequence[int], ([], (), "text", range(3)), ({}, set(), 1, Hostile()), "Sequence[int]"),
    (typing.Sequence[int], ([],), (1,), "Sequence[int]"),
    (Mapping[str, Any], ({}, types.MappingProxyType({})), ([], 1), "Mapping[str, Any]"),
    (Collection[int], ([], {}, set()), (iter(()), 1), "Collection[int]"),
    (Iterable[int], ([], iter(())), (1, None), "Iterable[int]"),
    (Callable[[int, str], bool], (len, int), (1, None), "Callable[[int, str], bool]"),
    (Callable[..., Any], (len,), ("len",), "Callable[..., Any]"),
    (typing.Callable, (len,), ("len",), "Callable"),
    (Hashable, (1, "a", (1,)), ([], ([],), Hostile()), "Hashable"),
    (Path, (Path(),), ("a", b"a", None), "Path"),
    (os.PathLike[str], (Path(),), ("a", 1), "PathLike[str]"),
    (str | os.PathLike[str], ("a", Path()), (1, b""), "str or PathLike[str]"),
    (typing.TextIO, (sys.stdout, 1), (), ""),
    (typing.IO[str], (sys.stdout, 1), (), ""),
    (Shape, (Square(),), (1, object(), None), "Shape"),
    (Closes, (Meets(), sys.stdout), (1, None), "Closes"),
    (Unchecked, (Meets(), 1, None), (), ""),
    (Pair, (Pair(1, 2),), ((1, 2), None), "Pair"),
    (
        Movie,
        ({"title": "x"}, {"title": "x", "year": 1}),
        ({}, {"year": 1}, [], None),
        "Movie, a dict with 'title'",
    ),
    (Torn, ({}, {"title": 1}), ([],), "Torn"),
    (Loose, ({"title": "x"},), ({}, {"year": 1}), "Loose, a dict with 'title'"),
    (Point, (Point(1),), (Record(1), 1), "Point"),
    (Record, (Record(1),), (Point(1), 1), "Record"),
    (Plain, (Plain(1),), ({"x": 1}, 1), "Plain"),
    (PlainInt, (PlainInt(1),), (1, True), "PlainInt"),
    (Box[int], (Box(),), (1, Box), "Box[int]"),
    (UserId, (1, UserId(2)), ("1", True), "UserId (int)"),
    (Annotated[int, "a note"], (1,), ("1", True), "int"),
    (Annotated[int, Meta(ge=0, lt=9)], (0, 8), (-1, 9, "1", True), "int (ge=0, lt=9)"),
    (Annotated[str, Meta(max_length=2)], ("", "ab"), ("abc", 1), "str (max_length=2)"),
    (Annotated[int, Meta(ge=0)] | None, (0, None), (-1,), "int (ge=0) or None"),
    (Annotated[int, Meta(pattern="a")], (1,), ("a",), "int (pattern='a')"),
    (Annotated[int, Meta(description="a note")], (-1,), ("1",), "int"),
    (T, (1, [], None), (), ""),
    (Bound, (1,), ("1", True), "int"),
    (Either, (1, "1"), (1.0, None), "int or str"),
    (Looping, (1, []), (), ""),
    (LiteralString, ("a",), (1,), "str"),
    (Never, (), (1, None), "nothing"),
    (Final[int], (1,), ("1",), "int"),
    (type, (int, Color), (1, list[int], Hostile()), "type"),
    (type[Shape], (Shape, Square), (int, Square(), None), "type[Shape]"),
    (type[Any], (int,), (1,), "type[Any]"),
    (type[int | str], (int, bool, str), (float, 1), "type[int or str]"),
    (type[Bound], (int, bool), (str,), "type[int]"),
    (type["Missing"], (int,), (1,), "type[Any]"),  # noqa: F821
    (type[Unchecked], (int,), (1,), "type[Any]"),
    (tuple, ((), (1,)), ([], None), "tuple"),
    (typing.Tuple, ((), (1,)), ([],), "tuple"),  # noqa: UP006
    (tuple[()], ((),), ((1,), []), "tuple[()]"),
    (tuple[int, ...], ((), (1, 2), ("contents",)), ([], 1), "tuple[int, ...]"),
    (tuple[int, str], ((1, "a"), Pair(1, "a")), ((1,), (1, 2), [1, "a"]), "tuple[int, str]"),  # type: ignore[arg-type]
    (tuple[int, tuple[str]], ((1, ("a",)),), ((1, "a"), (1, ([],))), "tuple[int, tuple[str]]"),
    (tuple[int, *tuple[str, ...]], ((), (1,)), ([],), "tuple[int, tuple[str, ...]]"),
    (list["Missing"], ([],), ((), 1), "list[Any]"),  # type: ignore[name-defined] # noqa: F821
    (list["Color"], ([],), ((),), "list[Color]"),
    ("int", (1,), ("1",), "int"),
    ("int | None", (1, None), ("1",), "int or None"),
    ("list[Missing]", ([],), ((),), "list[Any]"),
    ("dict[str, Missing] | None", ({}, None), ([],), "dict[str, Any] or None"),
    ("Missing | None", (1, None), (), ""),
    ("missing.Inner", (1, None), (), ""),
    ("missing[int](", (1, None), (), ""),
    ("1 / 0", (1, None), (), ""),
    ("Literal['Missing']", ("Missing",), ("other",), "Literal['Missing']"),
    (5, (1, None), (), ""),
    (Hostile(), (1, None), (), ""),
    (Strange, (Strange(), 1, None), (), ""),
    (Stranger, (Stranger(), 1, None), (), ""),
    (Strange | int, (Strange(), 1, "a"), (), ""),
    (Names, ([],), ((),), "list[str]"),
    (Numbers, ([],), ((),), "list[int]"),
    (Deep, ([],), ((),), ""),
    (deep(300), ([], [[]]), ((),), ""),
    (Nested, (Nested(), Nested(Nested())), (1, None), "Nested"),
    (namedtuple("Old", "x"), (), ((1,),), "Old"),
    (msgspec.UnsetType, (msgspec.UNSET,), (None,), "UnsetType"),
    (collections.abc.Sized, ([],), (1, object()), "Sized"),
)


@pytest.mark.parametrize(("annotation", "good", "bad", "words"), CASES, ids=count())
async def test_fields(
    annotation: Any, good: tuple[Any, ...], bad: tuple[Any, ...], words: str
) -> None:
    """A field takes what its annotation says, and refuses the rest in words people write."""
    message = with_field(annotation)
    async with running() as sink:
        for value in good:
            assert value is await sink.ask(message(value))
        for value in bad:
            with pytest.raises(InvalidArgument) as caught:
                await sink.ask(message(value))
            assert "x" == caught.value.argument
            if words:
                assert words == caught.value.expected
            with pytest.raises(InvalidArgument):
                sink.tell(message(value))


@pytest.mark.parametrize("annotation", [int, Any, object, float, "Missing", int | str])
async def test_large_numbers(annotation: Any) -> None:
    """An int beyond 64 bits is refused in any field."""
    message = with_field(annotation)
    async with running() as sink:
        for value in (2**64, -(2**63) - 1, 10**5000):
            with pytest.raises(InvalidArgument) as caught:
                await sink.ask(message(value))
            expected = "a whole number of 64 bits"
            assert ("x", expected) == (caught.value.argument, caught.value.expected)


class Own(Message, frozen=True):
    """What only a class can say: itself, its own names, names for type checkers."""

    class Inside(enum.Enum):
        A = 1

    shared: ClassVar[int] = 1
    same: Self | None = None
    inside: "Inside" = Inside.A
    unseen: "Unseen | None" = None
    str: "str" = ""
    Path: "Path | None" = None


class More(Own, frozen=True):
    """What is inherited is checked, what is written anew counts."""

    inside: int = 1  # type: ignore[assignment]


async def test_classes() -> None:
    """A message's own names are found, others than the field's, and each field by itself."""
    path: Any = pathlib.Path()
    odd: Any = object()
    async with running() as sink:
        for good in (
            Own(),
            Own(same=Own(), inside=Own.Inside.A, unseen=odd, str="a", Path=path),
            More(same=More(), inside=2),
        ):
            assert good.same is await sink.ask(good)
        for name, bad, words in (
            ("same", Own(same=odd), "Own or None"),
            ("same", More(same=Own()), "More or None"),  # type: ignore[arg-type]
            ("inside", Own(inside=odd), "Inside"),
            ("str", Own(str=odd), "str"),
            ("Path", Own(Path=odd), "Path or None"),
            ("inside", More(inside=odd), "int"),
        ):
            with pytest.raises(InvalidArgument) as caught:
                await sink.ask(bad)
            assert (name, words) == (caught.value.argument, caught.value.expected)


async def test_a_class_in_a_function() -> None:
    """A message of a function knows itself; what else is local there is not checked."""

    class Local:
        pass

    class Chain(Message, frozen=True):
        following: "Chain | None" = None
        local: "Local | None" = None

    async with running() as sink:
        assert await sink.ask(Chain(Chain(), Local())) == Chain()
        sink.tell(Chain(local=5))  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"following is 5; pass Chain or None"):
            await sink.ask(Chain(5))  # type: ignore[arg-type]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax came with Python 3.12")
async def test_aliases() -> None:
    """A `type` alias counts as what it stands for, and one that contains itself has an end."""
    names: dict[str, Any] = {"Message": Message}
    exec(
        "type Number = int | None\n"
        "type Tree = tuple[Tree, Tree] | int\n"
        "type Pairs[X] = dict[str, X]\n"
        "type Lost = list[Missing]\n"
        "class Typed[X: int](Message, frozen=True):\n"
        "    x: X\n"
        "    y: 'X'\n",
        names,
    )
    bush: Any = 1
    for _ in range(100):
        bush = (bush, bush)
    cases: tuple[tuple[str, tuple[Any, ...], tuple[Any, ...], str], ...] = (
        ("Number", (1, None), ("1",), "Number (int or None)"),
        ("Tree", (1, (1, 2), bush), ("1", (1,)), "Tree (tuple[Tree, Tree] or int)"),
        ("Lost", ([], 1), (), ""),
    )
    async with running() as sink:
        for alias, good, bad, words in cases:
            message = with_field(names[alias])
            for value in good:
                assert value is await sink.ask(message(value))
            for value in bad:
                with pytest.raises(InvalidArgument) as caught:
                    await sink.ask(message(value))
                assert words == caught.value.expected
        pairs = with_field(names["Pairs"][int])
        assert {} == await sink.ask(pairs({}))
        with pytest.raises(InvalidArgument):
            await sink.ask(pairs([]))
        typed = names["Typed"]
        assert 1 == await sink.ask(typed(1, 2))
        for each in (typed("1", 2), typed(1, "2")):
            with pytest.raises(InvalidArgument, match="pass int"):
                await sink.ask(each)


class Sly(Message, frozen=True):
    """A message that cannot be read."""

    x: int

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("never read")


async def test_strangers() -> None:
    """What is no message, or cannot be read, is malformed, whatever it claims to be."""
    strangers: tuple[Any, ...] = (
        *(None, 5, Message, Hostile(), Stranger(), Stranger, Liar(Own), Liar(None), Sly(1)),
    )
    async with running() as sink:
        for stranger in strangers:
            with pytest.raises(MalformedMessage):
                await sink.ask(stranger)
            with pytest.raises(MalformedMessage):
                sink.tell(stranger)


async def test_what_cannot_be_shown() -> None:
    """A value is refused in a short time and with few words, however it shows itself."""
    bush: Any = []
    for _ in range(100):
        bush = [bush, {"x": bush}]
    message = with_field(int)
    async with running() as sink:
        values: tuple[Any, ...] = (bush, (bush,), {1: bush}, Stranger(), Liar(None), Hostile())
        for value in values:
            with pytest.raises(InvalidArgument) as caught:
                await sink.ask(message(value))
            assert len(caught.value.found) < 100


@pytest.mark.parametrize("annotation", [case[0] for case in CASES], ids=count())
async def test_foreign_values(annotation: Any) -> None:
    """Any value in any field is taken or refused, and nothing else happens."""
    message = with_field(annotation)
    strangers = (Stranger(), Stranger, Liar(int), Liar(None), Strange, Sly(1))
    async with running() as sink:
        for value in (*FOREIGN_VALUES, *strangers):
            for each in (message(value), message((value, value))):
                with suppress(InvalidArgument):
                    sink.tell(each)
