"""What the fields of a message may hold: its annotations, made into checks once for each class.

A name that is known to type checkers only, and a type that nobody can test for, are not checked. A
check looks at a value and not into it, so that its time depends on the annotation alone: of a
container it tells the kind, of a tuple of fixed length the elements, of a `TypedDict` the required
keys.
"""

import builtins
import sys
from collections.abc import Callable, Hashable
from enum import Enum
from functools import cache, partial
from inspect import get_annotations
from types import NoneType, UnionType
from typing import (
    IO,
    Annotated,
    Any,
    BinaryIO,
    ClassVar,
    Final,
    ForwardRef,
    Literal,
    LiteralString,
    Never,
    NewType,
    NoReturn,
    NotRequired,
    Required,
    Self,
    TextIO,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

from attrs import evolve, frozen
from msgspec import Meta, ValidationError, convert

from ioasid.core import InvalidArgument, MalformedMessage, Message
from ioasid.core._errors import type_name

if sys.version_info >= (3, 14):
    # annotationlib.Format.FORWARDREF: a name that is unknown spoils no other field.
    _written = partial(get_annotations, format=3)
else:
    _written = get_annotations

__all__ = ["check_message"]

Test: TypeAlias = Callable[[Any], object]

FIRST: Final = -(2**63)
LAST: Final = 2**64 - 1

PLAIN: Final[dict[type, tuple[type, ...]]] = {
    int: (int,),
    float: (float, int),
    complex: (complex, float, int),
    str: (str,),
    bytes: (bytes,),
}
"""What is accepted for a type that handlers calculate with and look up, as type checkers do."""
METHODS: Final = (
    *("__eq__", "__ne__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("__len__", "__index__", "__float__"),
)
"""What a subclass of these must not write anew: it is called wherever one is looked up."""
ANY_VALUE: Final = (Any, object, IO, TextIO, BinaryIO)
"""Files are no instances of the last three."""
NO_VALUE: Final = (Never, NoReturn)
WRAPPERS: Final = (Final, ClassVar, Required, NotRequired, Unpack)
LIMITS: Final = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


@frozen
class Part:
    """What an annotation, or a part of it, accepts, and how to say so."""

    words: str
    exact: type | None = None
    """A value of exactly this type is accepted without a test."""
    test: Test | None = None
    """Tells of other values, and may raise anything; without it they are refused."""

    def accepts(self, value: object) -> bool:
        """Tell whether the value fits; a test that raises tells that it does not."""
        if type(value) is self.exact:
            return True
        if self.test is None:
            return False
        try:
            return bool(self.test(value))
        except Exception:  # noqa: BLE001 - a foreign value may raise anything
            return False


def check_message(message: object) -> None:
    """Refuse what an actor must not be sent.

    Raises `MalformedMessage` for what is no `Message`, or cannot be read, and `InvalidArgument`
    for a field that does not hold what its annotation says, or holds an int beyond 64 bits.
    """
    # The type's word, for an instance may claim to be of any class.
    kind = type(message)
    if not issubclass(kind, Message):
        raise MalformedMessage("request", f"a {type_name(kind)} is no message")
    try:
        for name, exact, part in _fields(kind):
            value = getattr(message, name)
            found = type(value)
            if found is not exact and not part.accepts(value):
                raise InvalidArgument.of(name, value, part.words)
            if found is int and not FIRST <= value <= LAST:
                raise InvalidArgument.of(name, value, "a whole number of 64 bits")
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001 - what it overrides may raise anything
        reason = f"a {type_name(kind)} cannot be read ({type_name(type(error))})"
        raise MalformedMessage("request", reason) from None


# -- the annotations of a class -----------------------------------------------------------------


@cache
def _fields(kind: type[Message]) -> tuple[tuple[str, type | None, Part], ...]:
    parts: dict[str, Part] = dict.fromkeys(kind.__struct_fields__, _anything("Any"))
    for base in reversed(kind.__mro__):
        if not issubclass(base, Message):
            continue
        names = _Names(base)
        for name, hint in _annotations(base).items():
            if name in parts:
                parts[name] = _Reader(kind).part(_resolve(base, name, hint, names))
    return tuple((name, part.exact, part) for name, part in parts.items())


def _annotations(base: type) -> dict[str, Any]:
    try:
        return dict(_written(base))
    except Exception:  # noqa: BLE001 - evaluating them may raise anything
        return {}


class _Names(dict[str, Any]):
    """The names that an annotation of a class may use; one that is unknown is `Any`."""

    def __init__(self, base: type[Message]) -> None:
        super().__init__(vars(builtins))
        self.update(getattr(sys.modules.get(base.__module__), "__dict__", {}))
        # A field may have the name of its type.
        fields = set(base.__struct_fields__)
        self.update({name: each for name, each in vars(base).items() if name not in fields})
        self.update({each.__name__: each for each in getattr(base, "__type_params__", ())})
        if "<locals>" in base.__qualname__:
            self[base.__name__] = base

    def __missing__(self, name: str) -> Any:
        return Any


def _resolve(base: type, name: str, hint: Any, names: _Names) -> Any:
    # One by one, so that a name which is unknown here spoils no other field.
    alone = type("Alone", (), {"__annotations__": {name: hint}, "__module__": base.__module__})
    try:
        return get_type_hints(alone, dict(names), names, include_extras=True)[name]
    except Exception:  # noqa: BLE001 - evaluating it may raise anything
        return hint


class _Reader:
    """Makes parts out of the annotations of a class."""

    def __init__(self, kind: type[Message]) -> None:
        self._kind = kind
        self._open: list[object] = []

    def part(self, hint: Any) -> Part:
        """Return what an annotation accepts: anything, if there is no telling."""
        try:
            return self._part(hint)
        except Exception:  # noqa: BLE001 - a foreign annotation may raise anything
            return _anything("Any")

    def _part(self, hint: Any) -> Part:
        origin, args = get_origin(hint), get_args(hint)
        if hint is None or hint is NoneType:
            return Part("None", NoneType)
        if _among(hint, ANY_VALUE) or _among(origin, ANY_VALUE):
            return _anything("Any")
        if _among(hint, NO_VALUE):
            return Part("nothing")
        if isinstance(hint, str | ForwardRef):
            return _anything(hint if isinstance(hint, str) else hint.__forward_arg__)
        if hint is Self:
            return self._class(self._kind)
        if hint is LiteralString:
            return self._class(str)
        if isinstance(hint, TypeVar):
            return self._once(hint, lambda: self._variable(hint))
        if isinstance(hint, NewType):
            return _named(hint, self.part(hint.__supertype__))
        if origin is Annotated:
            return _limited(self.part(args[0]), args[0], args[1:])
        if _among(origin, WRAPPERS):
            return self.part(args[0])
        if _among(origin, (Union, UnionType)):
            return _either([self.part(each) for each in args])
        if origin is Literal:
            words = f"Literal[{', '.join(map(_literal, args))}]"
            return Part(words, test=partial(_is_one_of, args))
        if origin is type:
            return self._class_of(args[0])
        if origin is tuple:
            return self._tuple(hint, args)
        generic = hint if origin is None else origin
        if not isinstance(generic, type) and hasattr(generic, "__value__"):
            return self._once(generic, lambda: _named(generic, self.part(generic.__value__)))
        part = self._class(generic)
        words = f"{part.words}[{', '.join(map(self._words, args))}]"
        return evolve(part, words=words) if args else part

    def _once(self, hint: Any, read: Callable[[], Part]) -> Part:
        # What contains itself is not looked into again.
        if _among(hint, self._open):
            return _anything(hint.__name__)
        self._open.append(hint)
        try:
            return read()
        finally:
            self._open.pop()

    def _variable(self, hint: TypeVar) -> Part:
        if hint.__constraints__:
            return _either([self.part(each) for each in hint.__constraints__])
        return self.part(Any if hint.__bound__ is None else hint.__bound__)

    def _words(self, arg: Any) -> str:
        if arg is ...:
            return "..."
        if isinstance(arg, list | tuple):
            return f"[{', '.join(map(self._words, arg))}]"
        return self.part(arg).words

    def _tuple(self, hint: Any, args: tuple[Any, ...]) -> Part:
        if not args and not repr(hint).endswith("[()]"):
            return self._class(tuple)
        words = f"tuple[{', '.join(map(self._words, args)) or '()'}]"
        if any(each is ... or _is_unpacked(each) for each in args):
            return evolve(self._class(tuple), words=words)
        parts = tuple(self.part(each) for each in args)
        return Part(words, test=partial(_has_elements, parts))

    def _class_of(self, hint: Any) -> Part:
        words = f"type[{self.part(hint).words}]"
        if isinstance(hint, TypeVar):
            hint = hint.__constraints__ or hint.__bound__
        union = _among(get_origin(hint), (Union, UnionType))
        wanted = get_args(hint) if union else (hint if isinstance(hint, tuple) else (hint,))
        known = [self._kind if each is Self else get_origin(each) or each for each in wanted]
        classes = tuple(object if _among(each, ANY_VALUE) else each for each in known)
        try:
            for each in classes:
                issubclass(int, each)
        except Exception:  # noqa: BLE001 - some protocols, and foreign classes, cannot tell
            classes = (object,)
        return Part(words, test=partial(_is_class_of, classes))

    def _class(self, hint: Any) -> Part:
        name = type_name(hint)
        if hint is Hashable:
            return Part(name, test=_has_hash)
        if hint is bool:
            return Part(name, bool)
        if hint.__module__ == "builtins":
            kinds = PLAIN.get(hint)
            return Part(name, hint, partial(_is_a, hint) if kinds is None else _plain(kinds))
        if hasattr(hint, "__required_keys__"):
            keys = _required(hint)
            words = f"{name}, a dict with {', '.join(map(repr, keys))}" if keys else name
            return Part(words, test=partial(_has_keys, keys))
        # A protocol that cannot be tested says so here.
        isinstance(object(), hint)
        return Part(name, hint, lambda value: isinstance(value, hint))


def _required(hint: Any) -> tuple[str, ...]:
    # A class whose annotations are strings does not know which keys are required.
    try:
        hints = get_type_hints(hint, include_extras=True)
    except Exception:  # noqa: BLE001 - evaluating them may raise anything
        return ()
    return tuple(
        sorted(key for key in hint.__required_keys__ if "NotRequired[" not in repr(hints[key]))
    )


def _limited(part: Part, hint: Any, extras: tuple[Any, ...]) -> Part:
    metas = [each for each in extras if isinstance(each, Meta)]
    limits = [
        f"{name}={getattr(meta, name)!r}"
        for meta in metas
        for name in LIMITS
        if getattr(meta, name) is not None
    ]
    if not limits:
        return part
    limited: Any = hint
    for meta in metas:
        limited = Annotated[limited, meta]
    words = f"{part.words} ({', '.join(limits)})"
    return Part(words, test=partial(_is_within, part, limited))


def _anything(words: str) -> Part:
    return Part(words, test=lambda _: True)


def _named(hint: Any, part: Part) -> Part:
    return evolve(part, words=f"{hint.__name__} ({part.words})")


def _is_unpacked(hint: Any) -> bool:
    return (
        isinstance(hint, TypeVarTuple)
        or get_origin(hint) is Unpack
        or getattr(hint, "__unpacked__", False) is True
    )


def _either(parts: list[Part]) -> Part:
    words = " or ".join(dict.fromkeys(each.words for each in parts))
    return Part(words, parts[0].exact, lambda value: any(each.accepts(value) for each in parts))


def _literal(choice: object) -> str:
    return f"{type_name(type(choice))}.{choice.name}" if isinstance(choice, Enum) else repr(choice)


def _among(hint: object, others: list[object] | tuple[Any, ...]) -> bool:
    return any(hint is each for each in others)


# -- tests, which may raise what they meet --------------------------------------------------------


def _plain(kinds: tuple[type, ...]) -> Test:
    def test(value: Any) -> bool:
        kind = type(value)
        for each in kinds:
            if kind is each:
                return True
            if issubclass(kind, each) and kind is not bool:
                # Methods of its own, unless in C, could raise or lie in the middle of a table.
                return all(
                    type(getattr(kind, name)) is type(getattr(each, name))
                    for name in METHODS
                    if hasattr(each, name)
                ) and (each is not int or FIRST <= int.__index__(value) <= LAST)
        return False

    return test


def _is_a(kind: type, value: object) -> bool:
    return issubclass(type(value), kind)


def _is_one_of(choices: tuple[Any, ...], value: object) -> bool:
    return any(
        value is each
        or (type(value) is type(each) and not isinstance(each, Enum) and value == each)
        for each in choices
    )


def _has_elements(parts: tuple[Part, ...], value: Any) -> bool:
    return (
        issubclass(type(value), tuple)
        and tuple.__len__(value) == len(parts)
        and all(part.accepts(each) for part, each in zip(parts, tuple.__iter__(value), strict=True))
    )


def _has_keys(keys: tuple[str, ...], value: Any) -> bool:
    return issubclass(type(value), dict) and all(dict.__contains__(value, key) for key in keys)


def _has_hash(value: object) -> bool:
    hash(value)
    return True


def _is_class_of(classes: tuple[type, ...], value: Any) -> bool:
    return issubclass(type(value), type) and any(issubclass(value, each) for each in classes)


def _is_within(part: Part, limited: Any, value: Any) -> bool:
    if not part.accepts(value):
        return False
    if type(value) not in (int, float, str, bytes):
        return True
    try:
        convert(value, limited)
    except ValidationError:
        return False
    except Exception:  # noqa: BLE001 - a limit that does not belong to the type
        return True
    return True
