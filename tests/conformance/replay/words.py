"""The words in which both sides are compared: a fact is equal when its words are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from tests.conformance.replay.trace import Callback, KernelState, Step

NO_ANSWER: Final = "no answer"
HUNG: Final = "hung"
SILENT: Final = frozenset({NO_ANSWER, "no ID", "not reclaimed", "IDs none", "no set"})
"""What the kernel said when it refused without a reason."""
ERRNOS: Final = {
    "EPERM": 1,
    "ENOENT": 2,
    "ENOMEM": 12,
    "EACCES": 13,
    "EBUSY": 16,
    "EEXIST": 17,
    "EINVAL": 22,
    "ENOSPC": 28,
}


@frozen
class Told:
    """A subscriber was told of an event in a certain turn; `carried` is what the event says."""

    subscriber: str
    kind: str
    ioasid: int
    carried: str
    turn: int = 0

    @property
    def event(self) -> tuple[str, int]:
        """Which event it was."""
        return self.kind, self.ioasid


@frozen
class Outcome:
    """What came out of one step: the answer, who was told, what they did, the facts after it.

    `calls` is all that was told and done, one after the other, on the kernel's side.
    """

    answer: str
    told: Sequence[Told] = ()
    did: Sequence[str] = ()
    facts: Mapping[str, str] = field(factory=dict)
    refused: bool = False
    calls: Sequence[str] = ()


# -- what was recorded --------------------------------------------------------------------------


def recorded_outcome(step: Step, facts: Mapping[str, str], holding: frozenset[str]) -> Outcome:
    """Return what a trace says of a step."""
    told = [
        Told(each.sub, each.event, each.id, _carried(each))
        for each in step.callbacks
        if each.event is not None
    ]
    did = list(_did(step.callbacks, holding))
    calls = list(_calls(step.callbacks))
    return Outcome(recorded_answer(step), told, did, facts, calls=calls)


def recorded_answer(step: Step) -> str:
    """Return what the kernel answered."""
    answer, ret = step.answer, step.answer.ret
    if hung(step):
        return HUNG
    if answer.err is not None:
        honest = ret == -ERRNOS[answer.err] if answer.err in ERRNOS else True
        return answer.err if honest else f"{answer.err} ({ret})"
    if step.operation.name == "for_each" and (isinstance(ret, list) or ret in {0, None}):
        return ids_words(_visited(step))
    match step.operation.name, ret:
        case "unregister" | "free_all", 0 | None:
            return NO_ANSWER
        case "put", bool():
            return reclaimed_words(bool(ret), "not reclaimed")
        case _, bool():
            return f"{ret}"
        case "alloc" | "find_by_spid", "INVALID":
            return "no ID"
        case "find_mm_set", _ if answer.set is not None:
            return f"set {answer.set}"
        case "find_mm_set", _:
            return "no set"
        case _, None:
            return NO_ANSWER
        case "set_alloc", 0:
            return set_words(answer.set, answer.set_id, answer.quota)
        case "alloc" | "find_by_spid", _:
            return f"ID {ret}"
        case "find", 0:
            return f"data {or_dash(answer.data or None)}"
        case "find_set", 0:
            return f"set {answer.set}"
        case "reserve", _:
            return f"{ret} reserved"
        case "cancel", _:
            return f"{ret} available"
        case "free" | "free_all" | "install" | "detach_spid" | "detach_data" | "run_work", _:
            return f"{ret}"
        case _, 0:
            return "done"
        case _:
            return f"{ret}"


def hung(step: Step) -> bool:
    """Whether the kernel was caught waiting for a lock that it had."""
    said = f"{step.answer.err} {step.answer.ret}".upper()
    return "DEADL" in said or stuck(step)


def refused(step: Step) -> bool:
    """Whether the kernel refused, or may have: it said so, or said nothing."""
    ret = step.answer.ret
    return step.answer.err is not None or ret is None or ret is False or isinstance(ret, str)


def stuck(step: Step) -> bool:
    """Whether a callback did not come back from a call that takes the lock."""
    return any(
        each.do in {"put", "get"} and each.ev == "action" and isinstance(each.ret, str | None)
        for each in step.callbacks
    )


def _visited(step: Step) -> Sequence[int]:
    if isinstance(step.answer.ret, list):
        return step.answer.ret
    if step.answer.ids is not None:
        return step.answer.ids
    return [each.id for each in step.callbacks if each.event is None and each.do is None]


def _did(callbacks: Sequence[Callback], holding: frozenset[str]) -> Iterator[str]:
    # What a holding subscriber gets and puts is granted here; the reference counts show it.
    for each in callbacks:
        verb = (each.do or "").partition("_")[0]
        granted = each.do == "put_locked" and each.sub in holding
        if each.event is None and verb != "get" and not granted:
            yield from _calls([each])


def _calls(callbacks: Sequence[Callback]) -> Iterator[str]:
    for each in callbacks:
        if each.event is not None:
            yield f"{each.sub} is told {_carried(each)}"
            continue
        match (each.do or "").partition("_")[0], each.ret:
            case "queue", _:
                yield f"{each.sub} defers {each.id}"
            case "detach", _:
                yield f"{each.sub} unbinds {each.id}"
            case "put", bool():
                yield put_words(each.sub, each.id, reclaimed=bool(each.ret))
            case "get", int():
                yield get_words(each.sub, each.id, got=each.ret == 0)
            case _:
                pass


def _carried(each: Callback) -> str:
    spid = None if each.spid == "INVALID" else each.spid
    return event_words(str(each.event), each.id, each.set, each.set_id, spid, each.pdata or None)


def recorded_facts(state: KernelState) -> dict[str, str]:
    """Return a recorded state, a fact an entry."""
    facts = {} if state.avail is None else {"available": f"{state.avail} of {state.capacity}"}
    for owner in state.sets:
        facts[f"set {owner.set}"] = set_fact(
            owner.id, owner.quota, owner.nr, pending=owner.free_pending
        )
    for one in state.ids:
        name = one.set if one.in_set else f"no longer in {one.set}"
        state_name = "ACTIVE" if one.state == "IDLE" else one.state
        spid = None if one.spid == "INVALID" else one.spid
        facts[f"ID {one.id}"] = id_fact(name, state_name, one.refs, spid, one.data or None)
    for entry in state.pending or ():
        facts[token_key(entry.sub, f"mm{entry.mm}")] = token_fact(joined=entry.active)
    return facts


# -- words --------------------------------------------------------------------------------------


def or_dash(value: object) -> object:
    """Return what is there, or a dash."""
    return "-" if value is None else value


def set_words(name: object, number: object, quota: object) -> str:
    """Say which set was made."""
    return f"{name} ({number}), quota {quota}"


def ids_words(ids: Sequence[int]) -> str:
    """Say which IDs a set has."""
    return f"IDs {', '.join(map(str, ids)) or 'none'}"


def put_words(name: str, ioasid: int, *, reclaimed: bool) -> str:
    """Say that a subscriber put a reference, or tried to."""
    return f"{name} puts {ioasid}{', reclaimed' if reclaimed else ''}"


def get_words(name: str, ioasid: int, *, got: bool) -> str:
    """Say that a subscriber took a reference, or tried to."""
    return f"{name} gets {ioasid}{'' if got else ', in vain'}"


def reclaimed_words(reclaimed: bool, otherwise: str) -> str:
    """Say whether an ID is back in the pool."""
    return "reclaimed" if reclaimed else otherwise


def event_words(
    kind: str, ioasid: int, name: object, number: object, spid: object, data: object
) -> str:
    """Say what an event carries."""
    return f"{kind} {ioasid}, {name} ({number}), spid {or_dash(spid)}, data {or_dash(data)}"


def set_key(name: str, number: int, *, named: bool) -> str:
    """Name a set; one whose name means a later set by now is told apart by its number."""
    return f"set {name}" if named else f"set {name}, number {number}"


def set_fact(number: int, quota: int, allocated: int, *, pending: bool) -> str:
    """Say how a set is."""
    return f"number {number}, {allocated} of {quota} allocated{', FREE_PENDING' if pending else ''}"


def id_fact(name: str, state: str, references: int, spid: object, data: object) -> str:
    """Say how an ID is."""
    return f"{name}, {state}, references {references}, spid {or_dash(spid)}, data {or_dash(data)}"


def token_key(subscriber: str, token: str) -> str:
    """Name a subscriber by token."""
    return f"subscriber {subscriber} of {token}"


def token_fact(*, joined: bool) -> str:
    """Say whether the set of a subscriber by token is there."""
    return "joined" if joined else "waits"
