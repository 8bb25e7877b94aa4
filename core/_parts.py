"""Parts: how long work is done, a bounded part with each request."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from attrs import define

from ioasid.core._answers import Answer, Done, Released, Waiting
from ioasid.core._effects import AskAgain, Complete
from ioasid.core._freezes import answer_as, end_turning, turn_some
from ioasid.core._grants import drop_grant
from ioasid.core._holders import Holder
from ioasid.core._imports import end_import, import_some
from ioasid.core._ioasid_records import Record, Waiter
from ioasid.core._lifecycle import LifeCycle
from ioasid.core._lookups import EVERYTHING, check_some, export_some
from ioasid.core._notifier import Notifier
from ioasid.core._requests import ExportSet, Free, FreeMany, FreeSet, FreezeSet, ImportSet, Request
from ioasid.core._resyncs import list_some
from ioasid.core._routes import NOBODY
from ioasid.core._space import SHIFT, WORD_COST, ones
from ioasid.core._tables import Tables
from ioasid.core._terms import FREE, RECLAIM
from ioasid.core._work import (
    Freeing,
    Importing,
    Leaving,
    LettingGo,
    LookingAgain,
    Relisting,
    Turning,
    Work,
)

__all__: list[str] = []

DONE: Final = Done()


@define(eq=False)
class Parts:
    """Does parts of the work in the tables."""

    _tables: Tables
    _notifier: Notifier
    _life: LifeCycle

    # -- a part -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Do a part of what was begun, and let everything happen that became possible."""
        tables = self._tables
        left = tables.part
        while tables.begun or tables.unsettled or tables.returning:
            begun, tables.begun = tables.begun, []
            for item in begun:
                left = self._do(item, left)
                if not self._is_done(item):
                    tables.work.append(item)
            self._life.settle()

    def go_on(self) -> None:
        """Do a part of the oldest piece of work; `settle` comes next, and then `finish`."""
        if self._tables.work:
            self._do(self._tables.work[0], self._tables.part)

    def finish(self) -> None:
        """Take out the oldest piece of work if it is done, and answer who waited for that.

        A part of what is only looked up is done as well.
        """
        tables = self._tables
        if tables.exports:
            export_some(tables)
        if tables.checks:
            check_some(tables)
        if not tables.work or not self._is_done(tables.work[0]):
            return
        item = tables.work.pop(0)
        if isinstance(item, Leaving):
            self._answer_left(item)
        elif isinstance(item, Freeing):
            self._life.end_freeing(item)
        elif isinstance(item, Turning):
            end_turning(tables, item)
        elif isinstance(item, Importing):
            end_import(tables, item)

    def hurry(self, holder: Holder) -> None:
        """Do at once all that is left of what lets a holder go."""
        tables = self._tables
        mine = [
            item
            for item in tables.work
            if (isinstance(item, Leaving) and item.holder is holder)
            or (isinstance(item, LettingGo) and item.subscription.holder is holder)
        ]
        tables.work = [item for item in tables.work if item not in mine]
        for item in mine:
            self._do(item, EVERYTHING)
            if isinstance(item, Leaving):
                self._answer_left(item)

    def _answer_left(self, item: Leaving) -> None:
        for ticket in item.tickets:
            self._tables.outbox.append(Complete(ticket, DONE))

    def resume(self, waits: Mapping[int, Request]) -> None:
        """Take over who waits, by ticket, from an allocator that this one goes on for.

        To free one ID is done in no parts: who waits for that waits for its reclaim. The others
        are answered when no work is left.
        """
        tables = self._tables
        for ticket, request in waits.items():
            if isinstance(request, Free):
                owner = tables.space.owner(request.ioasid)
                record = None if owner is None else owner.records.get(int(request.ioasid))
                self._life.wait_as(ticket, _pending(() if record is None else (record,)))
            elif isinstance(request, ExportSet | ImportSet):
                # A set that is being made already is known by what it is made of.
                making = [each for each in tables.imports.values() if _makes(each, request)]
                if making:
                    making[0].tickets.append(ticket)
                else:
                    tables.outbox.append(AskAgain(ticket))
            else:
                tables.resumed[ticket] = request

    def answer_resumed(self) -> None:
        """Answer who was taken over, if no work is left: theirs is done as well.

        Whoever waits until what they freed is reclaimed waits for that.
        """
        tables = self._tables
        if tables.work:
            return
        resumed, tables.resumed = tables.resumed, {}
        for ticket, request in resumed.items():
            match request:
                case FreeSet(wait=True):
                    self._life.wait_as(ticket, _pending(self._freed_by(request)))
                    continue
                case FreezeSet(sid):
                    answer_as(tables, ticket, sid)
                    continue
                case FreeSet() | FreeMany():
                    answer: Answer = Released(not _pending(self._freed_by(request)))
                case _:
                    answer = DONE
            tables.outbox.append(Complete(ticket, answer))

    def _freed_by(self, request: FreeSet | FreeMany) -> Iterable[Record]:
        # The records of what may still be in quarantine by such a request.
        owner = self._tables.sets.get(request.sid)
        records = () if owner is None else owner.records.values()
        if isinstance(request, FreeSet):
            return records
        ranges = request.ranges
        ends = [each.last for each in ranges]
        return (
            record
            for record in records
            if (place := bisect_left(ends, record.ioasid)) < len(ranges)
            and ranges[place].first <= record.ioasid
        )

    def freed(self, item: Freeing) -> Answer:
        """Return the answer of a request that began to free IDs."""
        if item.finished:
            assert item.answer is not None, "somebody asked"
            return item.answer()
        if item.waiter is not None:
            return Waiting(item.waiter.ticket)
        item.ticket = self._tables.new_ticket()
        return Waiting(item.ticket)

    def left(self, item: Leaving) -> Answer:
        """Return the answer of a request that let a holder go."""
        if item.finished:
            return DONE
        item.tickets.append(self._tables.new_ticket())
        return Waiting(item.tickets[-1])

    def abandon(self, ticket: int) -> None:
        """Forget a request that waits; what it asked for is done."""
        self._life.abandon(ticket)
        self._tables.resumed.pop(ticket, None)
        waits = [each.tickets for each in self._tables.exports.values()]
        waits += [each.tickets for each in self._tables.checks]
        for tickets in waits:
            if ticket in tickets:
                tickets.remove(ticket)
        for item in self._tables.work:
            if isinstance(item, Freeing):
                if item.waiter is not None and item.waiter.ticket == ticket:
                    item.waiter = None
                if item.ticket == ticket:
                    item.ticket = None
            elif isinstance(item, Leaving | Turning | Importing) and ticket in item.tickets:
                item.tickets.remove(ticket)
            elif isinstance(item, Turning) and ticket in item.waits:
                item.waits.remove(ticket)

    # -- each kind of work --------------------------------------------------------------------

    def _do(self, item: Work, left: int) -> int:
        # Does a part of a piece of work: about as much as is left for this request. Returns what
        # is left for others of it.
        match item:
            case Freeing():
                return self._free(item, left)
            case LettingGo():
                return self._let_go(item, left)
            case Leaving():
                return self._leave(item, left)
            case LookingAgain():
                return self._look_again(item, left)
            case Relisting():
                return list_some(self._tables, item, left)
            case Turning():
                return turn_some(self._tables, self._notifier, item, left)
            case Importing():
                return import_some(self._tables, self._notifier, item, left)
            case _:
                assert_never(item)

    def _is_done(self, item: Work) -> bool:
        match item:
            case Freeing() | Leaving() | Relisting() | Turning() | Importing():
                return item.finished
            case LettingGo(subscription):
                ended = subscription.leaving and subscription.number in self._tables.subscriptions
                return not (subscription.dealt or subscription.spent or ended)
            case LookingAgain():
                return item.word is None
            case _:
                assert_never(item)

    def _free(self, item: Freeing, left: int) -> int:
        owner = item.owner
        routes = [self._notifier.route(owner, kind) for kind in (FREE, RECLAIM)]
        told = any(route is not NOBODY for route in routes)
        one_by_one = len(owner.records)
        if told:
            one_by_one = sum(word.bit_count() for _, word in item.chosen)
        if item.fresh and one_by_one <= left:
            self._life.free_all(owner, item.chosen[::-1])
            item.chosen.clear()
            left -= one_by_one
        elif item.fresh and item.wait:
            # So that whoever waits is noted with each part, and not with all of them at the end.
            ticket = self._tables.new_ticket()
            item.waiter = self._tables.waiters[ticket] = Waiter(ticket, more=True)
        item.fresh = False
        # Whoever is told costs as much as the ID itself.
        cost = 1 + sum(len(tier) for route in routes for tier in route.tiers)
        while item.chosen and left > 0:
            left = self._free_some(item, left, cost, told=told)
        if not item.chosen:
            item.finished = True
            self._life.destroy_if_empty(owner)
        return left

    def _free_some(self, item: Freeing, left: int, cost: int, *, told: bool) -> int:
        # Of the word that comes next.
        owner, space = item.owner, self._tables.space
        first, chosen = item.chosen.pop()
        chosen &= owner.members.get(first >> SHIFT, 0)
        meant = 0
        for bit in ones(chosen):
            if space.generation(first + bit) <= item.until:
                meant |= 1 << bit
        if not told:
            self._life.release_plain(owner, [(first, meant)])
            meant &= owner.members.get(first >> SHIFT, 0)
        for bit in ones(meant):
            if left <= 0:
                item.chosen.append((first, meant >> bit << bit))
                return left
            self._life.free(owner, first + bit)
            left -= cost
            record = owner.records.get(first + bit)
            if item.waiter is not None and record is not None and record.free_pending:
                self._life.note_waiter(item.waiter, record)
        return left - WORD_COST

    def _let_go(self, item: LettingGo, left: int) -> int:
        subscription = item.subscription
        if item.order is None:
            item.order = sorted(subscription.dealt, reverse=True)
        while item.order and left > 0:
            stage = subscription.dealt.pop(item.order.pop())
            self._notifier.let_go_of(subscription, stage)
            left -= 1
        while not item.order and subscription.spent and left > 0:
            drop_grant(self._tables, subscription, subscription.spent.pop())
            left -= 1
        if subscription.leaving and not (subscription.dealt or subscription.spent):
            del self._tables.subscriptions[subscription.number]
        return left

    def _leave(self, item: Leaving, left: int) -> int:
        holder, tables = item.holder, self._tables
        if item.order is None:
            item.order = sorted(holder.references, reverse=True)
        while item.order and left > 0:
            self._life.drop_reference(holder, item.order.pop())
            left -= 1
        # What its subscriptions let go of is older work, and may be among what was begun with it.
        if not item.order and not any(
            type(each) is LettingGo and each.subscription.holder is holder for each in tables.work
        ):
            item.finished = True
            tables.remove_holder(holder)
        return left

    def _look_again(self, item: LookingAgain, left: int) -> int:
        tables = self._tables
        assert item.word is not None, "it is not done"
        for number in tables.space.word_numbers(item.word):
            if left <= 0:
                item.word = number
                return left
            for bit in ones(tables.space.used(number)):
                ioasid = (number << SHIFT) + bit
                record = tables.chained.get(ioasid)
                if record is not None:
                    tables.unsettled[ioasid] = record
                    left -= 1
            left -= WORD_COST
        item.word = None
        return left


def _makes(item: Importing, request: ExportSet | ImportSet) -> bool:
    return isinstance(request, ImportSet) and not item.tickets and item.export == request.export


def _pending(records: Iterable[Record]) -> list[Record]:
    return [each for each in records if each.free_pending]
