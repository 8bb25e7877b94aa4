"""An operation of a trace: its words, read."""

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen

from ioasid.core import INVALID_IOASID, EventKind

VERBS: Final = frozenset({"get", "put", "stop"})
"""What a callback may do at once."""
LATER: Final = frozenset({"detach", "put"})
"""What a callback may leave to a work queue."""
KINDS: Final = frozenset(EventKind) - {EventKind.RECLAIM}
"""The kinds of event that the kernel has."""


@frozen
class Does:
    """What a callback does on an event; `locked` if it may, under the allocator's lock."""

    verbs: tuple[str, ...]
    locked: bool = False
    deferred: bool = False


@frozen
class Operation:
    """An operation; which of the fields count depends on its `name`.

    `set` is `None` for "any set". `number` is the first number that is no ID: a spid, an amount.
    """

    name: str
    words: str
    set: str | None = None
    ioasid: int = 0
    number: int = 0
    low: int = 0
    high: int = 0
    kind: str = ""
    token: str | None = None
    get: bool = False
    subscriber: str = ""
    scope: str = ""
    priority: str = ""
    does: Mapping[EventKind, tuple[Does, ...]] = field(factory=dict)

    @property
    def names(self) -> str | None:
        """The set that it names, as one of its arguments or to subscribe to."""
        kind, _, name = self.scope.partition(":")
        return name if kind == "set" else self.set

    @property
    def holds(self) -> bool:
        """Whether the subscriber gets at BIND and puts at UNBIND: what `hold=True` is for."""
        binds, ends = self.does.get(EventKind.BIND), self.does.get(EventKind.UNBIND)
        return (
            self.scope != "all"
            and binds == (Does(("get",), locked=True),)
            and ends == (Does(("put",), locked=True),)
        )


def read(op: Sequence[str]) -> Operation:
    """Read an operation. Raises `ValueError`."""
    match op:
        case ["set_alloc", name, kind, token, quota]:
            words = f"make set {name} ({kind}, token {token}), quota {quota}"
            return Operation(
                op[0], words, name, kind=kind, token=_named(token), number=_number(quota)
            )
        case ["set_free", name]:
            return Operation(op[0], f"destroy set {name}", name)
        case ["free_all", name]:
            return Operation(op[0], f"free every ID of {name}", name)
        case ["for_each", name]:
            return Operation(op[0], f"go through the IDs of {name}", name)
        case ["alloc", name, low, high, *data] if len(data) <= 1:
            words = f"allocate an ID of {low}..{high} in {name}"
            number = _number(data[0]) if data else 0
            words += f", data {data[0]}" if data else ""
            return Operation(
                op[0], words, name, low=_number(low), high=_number(high), number=number
            )
        case ["free" | "get" | "put" | "find" as verb, name, ioasid]:
            verbs = {"get": "take a reference on", "put": "put a reference on", "find": "look up"}
            where = f"ID {ioasid} in {'any set' if name == '-' else name}"
            return Operation(
                verb, f"{verbs.get(verb, verb)} {where}", _named(name), _number(ioasid)
            )
        case ["attach_spid", ioasid, spid]:
            words = f"bind ID {ioasid} to spid {spid}"
            return Operation(op[0], words, ioasid=_number(ioasid), number=_number(spid))
        case ["find_by_spid", name, spid, "0" | "1" as get]:
            words = f"find spid {spid} of {name}{', take a reference' if get == '1' else ''}"
            return Operation(op[0], words, name, number=_number(spid), get=get == "1")
        case ["attach_data", ioasid, data]:
            words = f"attach data {data} to ID {ioasid}"
            return Operation(op[0], words, ioasid=_number(ioasid), number=_number(data))
        case ["detach_spid" | "detach_data" | "find_set" as verb, ioasid]:
            verbs = {"detach_spid": "unbind", "detach_data": "detach the data of"}
            words = f"{verbs.get(verb, 'find the set of')} ID {ioasid}"
            return Operation(verb, words, ioasid=_number(ioasid))
        case ["get_if_owned", *rest] if 1 <= len(rest) <= 2:
            return _read_get_if_owned(rest)
        case ["find_mm_set", token]:
            return Operation(op[0], f"find the set of token {token}", token=token)
        case ["reserve" | "cancel" | "install" as verb, count]:
            verbs = {"reserve": f"reserve {count} IDs", "cancel": f"give back {count} reserved IDs"}
            words = verbs.get(verb, f"set the capacity to {count}")
            return Operation(verb, words, number=_number(count))
        case ["register", name, scope, "CPU" | "DEVICE" | "IOMMU" | "LAST" as priority, *actions]:
            does = _read_actions(actions)
            words = f"{name} subscribes to {_scope(scope)}, {priority}"
            words += "".join(f", {action}" for action in actions)
            return Operation(
                op[0], words, subscriber=name, scope=scope, priority=priority, does=does
            )
        case ["unregister", name, scope]:
            words = f"{name} unsubscribes from {_scope(scope)}"
            return Operation(op[0], words, subscriber=name, scope=scope)
        case ["run_work"]:
            return Operation(op[0], "run what was deferred")
        case _:
            raise ValueError(f"no such operation, or wrong arguments: {' '.join(op)!r:.80}")


def _read_get_if_owned(rest: Sequence[str]) -> Operation:
    # Who asks, by token or by set, may stand on either side; without, it is who owns nothing.
    ioasid, *others = sorted(rest, key=str.isdecimal, reverse=True)
    caller = next((word for word in others if word != "-"), None)
    words = f"take a reference on ID {ioasid}, if it belongs to {caller or 'nobody'}"
    return Operation("get_if_owned", words, ioasid=_number(ioasid), token=caller)


def _read_actions(actions: Sequence[str]) -> dict[EventKind, tuple[Does, ...]]:
    does: dict[EventKind, tuple[Does, ...]] = {}
    for action in actions:
        event, _, what = action.removeprefix("on=").partition(":")
        verbs = [verb for verb in what.lower().split("_") if verb not in {"ret", "return"}]
        deferred, locked = verbs[:1] == ["defer"], verbs[-1:] == ["locked"]
        verbs = verbs[1 if deferred else 0 : -1 if locked else None]
        known = verbs and (LATER if deferred else VERBS).issuperset(verbs)
        if event not in KINDS or not known:
            raise ValueError(f"no such action of a subscriber: {action!r:.80}")
        kind = EventKind(event)
        does[kind] = (*does.get(kind, ()), Does(tuple(verbs), locked, deferred))
    return does


def _scope(scope: str) -> str:
    kind, colon, name = scope.partition(":")
    match kind, bool(colon), bool(name):
        case "all", False, False:
            return "all"
        case "set", True, True:
            return f"set {name}"
        case "mm", True, True:
            return f"token {name}"
        case _:
            raise ValueError(f"no such scope: {scope!r:.80}")


def _named(name: str) -> str | None:
    return None if name == "-" else name


def _number(word: str) -> int:
    if word == "INVALID":
        return INVALID_IOASID
    number = int(word)
    if not 0 <= number <= INVALID_IOASID:
        raise ValueError(f"{word} is no number of 32 bits")
    return number
