"""Operations carried out on this allocator: the synchronous core, by plain calls.

How a kernel operation becomes a request:

- The kernel's references have no owner. Here `HOLDER` takes and puts them, whoever asks. The one
  from the allocation is the set's own on both sides.
- `register` is a subscription by a session of that name to the four kinds of event the kernel
  has, or, for the whole system, to FREE: nothing else went to the kernel's system-wide chain.
- A kernel callback that returns is done with its event, so a subscriber acknowledges at once.
- Callbacks that get at BIND and put at UNBIND are what `hold=True` is for. One that only puts, a
  reference that was taken elsewhere, puts at UNBIND or at the FREE of a bound ID: either ends a
  binding here. One that defers to a work queue does so when the trace says `run_work`.
- Reserving 0 means "all" to the kernel, `None` here, and so does the quota 0; data 0 means "no
  data", `None` here.
- A name stands for the set that was made under it last. Is that gone, it stands for no set.

What the core looks like is known in this module and nowhere else in the package.
"""

from contextlib import suppress
from operator import itemgetter
from typing import Final, cast

from attrs import define, field

from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocated,
    Allocator,
    AllocSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CapacityRecord,
    Deliver,
    DetachData,
    DetachSpid,
    Event,
    EventKind,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    Free,
    FreeSet,
    Get,
    InstallCapacity,
    IoasidError,
    IoasidRecord,
    Listing,
    ListSet,
    OpenSession,
    Priority,
    Put,
    Released,
    Request,
    ReserveCapacity,
    SessionOpened,
    SetRecord,
    SetState,
    Subscribe,
    Subscribed,
    TokenType,
    UnknownToken,
    Unsubscribe,
)
from tests.conformance.replay import words
from tests.conformance.replay.operation import KINDS, Operation
from tests.conformance.replay.tiers import reactions
from tests.conformance.replay.words import Outcome, Told

CAPACITY: Final = 1 << 20
HOLDER: Final = "driver"
NO_SET: Final = 2**31
"""A number that no set has."""
NO_SUBSCRIPTION: Final = 2**31


@define(eq=False)
class Driver:
    """A fresh allocator of `CAPACITY` IDs with nothing reserved, and who subscribes to it."""

    _core: Allocator = field(
        init=False, factory=lambda: Allocator(CAPACITY, holder=HOLDER, reserve_zero=False)
    )
    _sessions: dict[str, int] = field(init=False, factory=dict)
    _sets: dict[str, int] = field(init=False, factory=dict)
    _names: dict[int, str] = field(init=False, factory=dict)
    _tokens: dict[int, str | None] = field(init=False, factory=dict)
    _reserved: int = field(init=False, default=0)
    _numbers: dict[tuple[str, str], int] = field(init=False, factory=dict)
    _subscribers: dict[int, Operation] = field(init=False, factory=dict)
    _deferred: list[tuple[str, int, tuple[str, ...]]] = field(init=False, factory=list)
    _delivered: list[tuple[int, Event]] = field(init=False, factory=list)
    # Of the present step.
    _turn: int = field(init=False, default=0)
    _told: list[Told] = field(init=False, factory=list)
    _did: list[str] = field(init=False, factory=list)

    def step(self, operation: Operation) -> Outcome:
        """Carry out an operation, and let everybody deal with what follows."""
        self._turn, self._told, self._did = 0, [], []
        try:
            answer, refused = self._carry_out(operation), False
        except IoasidError as error:
            answer, refused = f"{error.code} {type(error).__name__}", True
        self._settle()
        return Outcome(answer, self._told, self._did, self.facts(), refused)

    # -- one operation ------------------------------------------------------------------------

    def _carry_out(self, op: Operation) -> str:
        match op.name:
            case "run_work":
                self._work()
                return "done"
            case "register":
                return self._register(op)
            case "unregister":
                number = self._numbers.get((op.subscriber, op.scope), NO_SUBSCRIPTION)
                self._ask(Unsubscribe(number), op.subscriber)
                return "done"
            case "for_each":
                listing = cast("Listing", self._ask(ListSet(self._sid(op.set))))
                return words.ids_words([each.ioasid for each in listing])
            case _:
                return self._answer(op, self._ask(self._request(op)))

    def _answer(self, op: Operation, answer: object) -> str:
        match answer:
            case SetRecord() if op.name == "set_alloc":
                assert op.set is not None
                self._sets[op.set] = answer.sid
                self._names[answer.sid] = op.set
                self._tokens[answer.sid] = answer.token
                return words.set_words(op.set, answer.sid, answer.quota)
            case SetRecord() | FoundSid():
                return f"set {self._name(answer.sid)}"
            case Allocated():
                return f"ID {answer.ioasid}"
            case IoasidRecord():
                return f"data {words.or_dash(answer.data or None)}"
            case CapacityRecord() if op.name == "reserve":
                taken, self._reserved = answer.reserved - self._reserved, answer.reserved
                return f"{taken} reserved"
            case CapacityRecord():
                self._reserved = answer.reserved
                return f"{answer.available} available"
            case Released() if op.name in {"put", "free"}:
                otherwise = "not reclaimed" if op.name == "put" else "in quarantine"
                return words.reclaimed_words(answer.reclaimed, otherwise)
            case _:
                return "done"

    def _request(self, op: Operation) -> Request:
        ioasid, number = op.ioasid, op.number
        any_set = None if op.set is None else self._sid(op.set)
        match op.name:
            case "set_alloc":
                types = {"mm": TokenType.MM, "null": TokenType.NULL}
                token_type = types.get(op.kind, cast("TokenType", op.kind))  # is to be refused
                return AllocSet(op.token, number or None, token_type)
            case "get_if_owned":
                return Get(ioasid, self._sid_of_caller(op.token))
            case "find_mm_set":
                return FindSet(op.token)
            case "alloc":
                return Alloc(self._sid(op.set), op.low, op.high, number or None)
            case "find_by_spid":
                return FindBySpid(self._sid(op.set), number, op.get)
            case _:
                pass
        requests: dict[str, Request] = {
            "set_free": FreeSet(self._sid(op.set)),
            "free_all": FreeSet(self._sid(op.set), destroy=False),
            "free": Free(ioasid, any_set),
            "get": Get(ioasid, any_set),
            "put": Put(ioasid, any_set),
            "find": Find(ioasid, any_set),
            "find_set": FindSid(ioasid),
            "attach_spid": AttachSpid(ioasid, number),
            "detach_spid": DetachSpid(ioasid),
            "attach_data": AttachData(ioasid, number),
            "detach_data": DetachData(ioasid),
            "reserve": ReserveCapacity(number or None),
            "cancel": CancelCapacity(number),
            "install": InstallCapacity(number),
        }
        return requests[op.name]

    def _register(self, op: Operation) -> str:
        kind, _, name = op.scope.partition(":")
        subscribe = Subscribe(
            sid=self._sid(name) if kind == "set" else None,
            token=name if kind == "mm" else None,
            kinds=frozenset({EventKind.FREE}) if kind == "all" else KINDS,
            priority=Priority(op.priority),
            hold=op.holds,
            queue_size=2**20,
            acknowledge_within=None,
        )
        answer = cast("Subscribed", self._ask(subscribe, op.subscriber))
        self._numbers[op.subscriber, op.scope] = answer.subscription
        self._subscribers[answer.subscription] = op
        return "done"

    def _ask(self, request: Request, holder: str = HOLDER) -> object:
        if holder not in self._sessions:
            self._sessions[holder] = self._session_of(holder)
        answer = self._core.handle(self._sessions[holder], request)
        for effect in self._core.drain():
            if isinstance(effect, Deliver) and isinstance(effect.message, Event):
                self._delivered += [(each, effect.message) for each in effect.subscriptions]
        return answer

    def _session_of(self, holder: str) -> int:
        if holder == HOLDER:
            return self._core.session
        return cast("SessionOpened", self._core.handle(0, OpenSession(holder))).session

    # -- what subscribers do ------------------------------------------------------------------

    def _settle(self) -> None:
        # Turn by turn, whoever is told something deals with it and acknowledges it. Among those
        # whose turn it is there is no order, so a fixed one will do.
        while self._delivered:
            self._turn += 1
            told, self._delivered = sorted(self._delivered, key=itemgetter(0)), []
            for number, event in told:
                self._tell(self._subscribers[number], event)
            for number, event in told:
                messages = ((number, event.seq),)
                self._ask(Acknowledge(messages), self._subscribers[number].subscriber)

    def _tell(self, terms: Operation, event: Event) -> None:
        name, ioasid = terms.subscriber, event.ioasid
        says = words.event_words(
            event.kind, ioasid, self._name(event.sid), event.sid, event.spid, event.data
        )
        self._told.append(Told(name, event.kind, ioasid, says, self._turn))
        for does in reactions(terms, event.kind, binding=event.spid is not None):
            if does.deferred:
                self._did.append(f"{name} defers {ioasid}")
                self._deferred.append((name, ioasid, does.verbs))
            elif "put" in does.verbs:
                self._put(name, ioasid)
            elif "get" in does.verbs:
                with suppress(IoasidError):
                    self._ask(Get(ioasid))

    def _put(self, name: str, ioasid: int) -> None:
        reclaimed = False
        with suppress(IoasidError):
            reclaimed = cast("Released", self._ask(Put(ioasid))).reclaimed
        self._did.append(words.put_words(name, ioasid, reclaimed=reclaimed))

    def _work(self) -> None:
        deferred, self._deferred = self._deferred, []
        for name, ioasid, verbs in deferred:
            for verb in verbs:
                if verb == "detach":
                    self._did.append(f"{name} unbinds {ioasid}")
                    with suppress(IoasidError):
                        self._ask(DetachSpid(ioasid))
                else:
                    self._put(name, ioasid)
                self._settle()

    # -- how it is ----------------------------------------------------------------------------

    def facts(self) -> dict[str, str]:
        """Return what can be compared of the state."""
        snapshot = self._core.snapshot()
        facts: dict[str, str] = {}
        quotas = 0
        for owner in snapshot.sets:
            name, pending = self._name(owner.sid), owner.state is SetState.FREE_PENDING
            ids = list(cast("Listing", self._ask(ListSet(owner.sid))))
            quotas += owner.quota
            named = self._sets.get(name) == owner.sid
            facts[words.set_key(name, owner.sid, named=named)] = words.set_fact(
                owner.sid, owner.quota, len(ids), pending=pending
            )
            for live in ids:
                record = self._core.record(live.ioasid)
                assert record is not None
                facts[f"ID {live.ioasid}"] = words.id_fact(
                    name, live.state, record.reference_count, live.spid, live.data or None
                )
        available = snapshot.capacity - snapshot.reserved - quotas
        facts["available"] = f"{available} of {snapshot.capacity}"
        tokens = {owner.token for owner in snapshot.sets}
        for each in snapshot.subscriptions:
            if each.token is not None:
                key = words.token_key(each.holder, each.token)
                facts[key] = words.token_fact(joined=each.token in tokens)
        return facts

    def _sid(self, name: str | None) -> int:
        return NO_SET if name is None else self._sets.get(name, NO_SET)

    def _sid_of_caller(self, caller: str | None) -> int:
        # Who asks is known by a token, or by the set that has it.
        token = self._tokens.get(self._sid(caller), caller)
        try:
            return NO_SET if token is None else cast("SetRecord", self._ask(FindSet(token))).sid
        except UnknownToken:
            return NO_SET

    def _name(self, sid: int) -> str:
        return self._names.get(sid, f"number {sid}")
