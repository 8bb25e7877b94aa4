"""The kernel's way of telling subscribers: chains of notifier blocks, called one by one.

There is a chain for the whole system, which only hears FREE, and one for each set. A subscriber
has one block, wherever it subscribes, and the block has the link to the next one in it. Who
subscribes to a token waits in a list, newest first, and is chained to the set when there is one.
"""

from collections.abc import Iterator
from typing import Final

from attrs import define, field

from ioasid.core import EventKind
from tests.conformance.replay import rules
from tests.conformance.replay.notifier import Notifier, carried
from tests.conformance.replay.operation import Does, Operation
from tests.conformance.replay.state import Ioasid, IoasidSet
from tests.conformance.replay.words import (
    NO_ANSWER,
    Told,
    get_words,
    put_words,
    token_fact,
    token_key,
)

TIERS: Final = ("CPU", "DEVICE", "IOMMU", "LAST")


@define(eq=False)
class Block:
    """A notifier block: its priority, what its callback does, and who comes after it."""

    name: str
    terms: Operation
    next: "Block | None" = None
    chained: int = 0


@define(eq=False)
class Waiting:
    """A subscriber by token, and the set it is chained to."""

    block: Block
    token: str
    owner: IoasidSet | None = None


Chain = IoasidSet | None
"""A chain is known by its set; the system's by `None`."""


@define(eq=False)
class Chains(Notifier):
    """Chains of blocks. `ranks` says which priority is called first: the highest."""

    ranks: dict[str, int]
    _blocks: dict[str, Block] = field(init=False, factory=dict)
    _heads: dict[Chain, Block | None] = field(init=False, factory=dict)
    _waiting: list[Waiting] = field(init=False, factory=list)

    hangs: bool = field(init=False, default=False)
    """Whether a callback that takes the lock was seen to wait for it in this step."""

    @property
    def holding(self) -> frozenset[str]:
        """Who gets at BIND and puts at UNBIND."""
        return frozenset(name for name, block in self._blocks.items() if block.terms.holds)

    # -- subscribing --------------------------------------------------------------------------

    def register(self, op: Operation) -> str:
        """Chain a block, or let it wait for a set with the token."""
        model = self.model
        kind, _, name = op.scope.partition(":")
        block = self._blocks.setdefault(op.subscriber, Block(op.subscriber, op))
        if kind == "mm":
            if any(each.block is block and each.token == name for each in self._waiting):
                model.refuse("EBUSY", "EEXIST AlreadySubscribed")
            owner = model.system.by_token(name)
            if owner is not None and owner.allocated:
                model.decided(rules.TOKEN_ANY_TIME)
                model.refuse("EBUSY", "EBUSY")
            block.terms = op
            self._waiting.insert(0, Waiting(block, name, owner))
            if owner is not None:
                self._chain(block, owner)
            return "done"
        chain = None
        if kind == "set":
            chain = model.system.named(name)
            if chain is None:
                model.decided(rules.GONE_IS_GONE)
                return "done"
        if block in self._walk(chain):
            model.decided(rules.ONCE_PER_SCOPE)
            return "done"
        block.terms = op
        self._chain(block, chain)
        return "done"

    def unregister(self, op: Operation) -> str:
        """Take a block out of a chain; an empty set goes with it."""
        kind, _, name = op.scope.partition(":")
        block = self._blocks.get(op.subscriber)
        if kind == "mm":
            for each in self._waiting:
                if each.block is block and each.token == name:
                    self._waiting.remove(each)
                    if each.owner is not None:
                        self._leave(each.block, each.owner)
                    break
        elif any(each.block is block for each in self._waiting):
            self.model.decided(rules.ONE_EACH)
        elif kind == "all":
            self._unchain(block, None)
        elif (owner := self.model.system.named(name)) is not None:
            self._leave(block, owner)
        return NO_ANSWER

    def _leave(self, block: Block | None, owner: IoasidSet) -> None:
        self._unchain(block, owner)
        if block is not None and any(block.name in one.granted for one in owner.members.values()):
            self.model.decided(rules.GRANT_ENDS)
        if not owner.allocated and owner.alive:
            self.model.decided(rules.SET_STAYS)
            self.model.end(owner)

    def _chain(self, block: Block, chain: Chain) -> None:
        if block in self._walk(chain):
            return
        block.chained += 1
        if block.chained > 1:
            self.model.decided(rules.ONE_EACH)
        before, after = None, self._heads.get(chain)
        while after is not None and self._rank(after) >= self._rank(block):
            before, after = after, after.next
        block.next = after
        if before is None:
            self._heads[chain] = block
        else:
            before.next = block

    def _unchain(self, block: Block | None, chain: Chain) -> None:
        before = None
        for each in self._walk(chain):
            if each is block:
                block.chained -= 1
                if before is None:
                    self._heads[chain] = block.next
                else:
                    before.next = block.next
                return
            before = each

    def _walk(self, chain: Chain) -> Iterator[Block]:
        block, seen = self._heads.get(chain), set[int]()
        while block is not None and id(block) not in seen:
            seen.add(id(block))
            yield block
            block = block.next

    def _rank(self, block: Block) -> int:
        return self.ranks[block.terms.priority]

    # -- telling ------------------------------------------------------------------------------

    def hears(self, kind: EventKind, owner: IoasidSet) -> bool:
        """Whether there is a block in a chain that the event goes to."""
        return any(True for chain in self._chains(kind, owner) for _ in self._walk(chain))

    def _chains(self, kind: EventKind, owner: IoasidSet) -> list[Chain]:
        return [None, owner] if kind is EventKind.FREE else [owner]

    def notify(self, kind: EventKind, one: Ioasid) -> None:
        """Call every block, the system's first, until one stops its chain."""
        says, way = carried(kind, one), []
        for chain in self._chains(kind, one.owner):
            for block in self._walk(chain):
                way.append(TIERS.index(block.terms.priority))
                if self.model.system.ids.get(one.ioasid) is not one:
                    self.model.decided(rules.FREE_HOLDS)
                self.told.append(Told(block.name, kind, one.ioasid, says))
                self.calls.append(f"{block.name} is told {says}")
                actions = block.terms.does.get(kind, ())
                for does in actions:
                    self._act(block, one, does)
                if any("stop" in does.verbs for does in actions):
                    self.model.decided(rules.NOBODY_STOPS)
                    break
        if way != sorted(way):
            self.model.decided(rules.ONE_ORDER)

    def _act(self, block: Block, one: Ioasid, does: Does) -> None:
        if does.deferred:
            self.note(f"{block.name} defers {one.ioasid}")
            self.model.deferred.append((block.name, one.ioasid, does.verbs))
            return
        for verb in does.verbs:
            if verb != "stop" and not does.locked and self.hangs:
                self.model.decided(rules.PUT_ANYWHERE)
                self.stuck = True
            elif verb == "get":
                self._get(block, one)
            elif verb == "put":
                self._put(block, one)

    def _get(self, block: Block, one: Ioasid) -> None:
        live = self.model.system.ids.get(one.ioasid)
        gets = live is not None and not live.free_pending
        self.calls.append(get_words(block.name, one.ioasid, got=gets))
        if live is None or not gets:
            return
        if block.terms.holds:
            live.refs += 1
            live.granted.append(block.name)
        else:
            self.model.take(live)

    def _put(self, block: Block, one: Ioasid) -> None:
        model = self.model
        if not block.terms.holds:
            model.put_for(block.name, one.ioasid)
            return
        live, reclaimed = model.system.ids.get(one.ioasid), False
        if live is not None:
            if block.name in live.granted:
                live.granted.remove(block.name)
            else:
                model.decided(rules.OWN_REFERENCES)
            reclaimed = model.drop(live)
        self.calls.append(put_words(block.name, one.ioasid, reclaimed=reclaimed))

    def keeps(self, one: Ioasid) -> bool:
        """Nothing keeps an ID here but its references."""
        if one.free_pending and any(
            each.event == (EventKind.FREE, one.ioasid) for each in self.told
        ):
            self.model.decided(rules.FREE_HOLDS)
        return False

    # -- sets ---------------------------------------------------------------------------------

    def made(self, owner: IoasidSet) -> None:
        """Chain those who waited for the token, newest first."""
        self._heads[owner] = None
        for each in self._waiting:
            if each.token == owner.token and each.owner is None:
                each.owner = owner
                self._chain(each.block, owner)

    def gone(self, owner: IoasidSet) -> None:
        """Let subscribers by token wait again."""
        for block in self._walk(owner):
            block.chained -= 1
        for each in self._waiting:
            if each.token == owner.token:
                each.owner = None

    def settle(self) -> None:
        """Everything is done: a callback is a call."""

    def facts(self) -> dict[str, str]:
        """Return who waits for a token."""
        return {
            token_key(each.block.name, each.token): token_fact(joined=each.owner is not None)
            for each in self._waiting
        }
