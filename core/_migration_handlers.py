"""The requests that move a set to another host: its spids stay, its IDs change.

        source:  ACTIVE ──freeze──▶ FROZEN ──free──▶ absent
                    ▲──────thaw───────┘
        target:  absent ──import──▶ INCOMING ──activate──▶ ACTIVE
                    ▲──────free───────┘

A set that is FROZEN or INCOMING keeps its spids and has no bindings: to its subscribers the
freeze is the end of every binding, UNBIND, and a thaw or activation its beginning, BIND. Nobody
has to know what a migration is. (docs/explanation.md, Migration)
"""

from functools import partial
from typing import Any

from ioasid.core import _check
from ioasid.core._answers import Answer, Waiting
from ioasid.core._budget import affordable
from ioasid.core._errors import (
    RangeFull,
    SetFreePending,
    SetFrozen,
    SetNotFrozen,
    TokenInUse,
    WouldDeadlock,
)
from ioasid.core._freezes import call_off, running, turn, turned
from ioasid.core._handlers import DONE, Handlers, Outcome
from ioasid.core._holders import Holder
from ioasid.core._imports import begin, imported
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._lookups import check, end_export, export
from ioasid.core._requests import ActivateSet, ExportSet, FreezeSet, ImportSet, ThawSet
from ioasid.core._routes import DEVICE_TIER
from ioasid.core._set_handlers import add_set
from ioasid.core._terms import (
    SET_FREE_PENDING,
    UNBIND,
    EventKind,
    SetState,
)
from ioasid.core._work import Exporting, Turning

__all__: list[str] = []


class MigrationHandlers(Handlers):
    """The handlers of migration."""

    # -- the source ---------------------------------------------------------------------------

    def freeze_set(self, holder: Holder, request: FreezeSet) -> Outcome:
        """End every binding of a set, and keep its spids."""
        wait = _check.flag(request.wait, "wait")
        owner = self._movable(request.sid)
        if owner.state is SetState.INCOMING and not self._begins(owner):
            raise SetFrozen(owner.sid, owner.state, token=owner.token)
        if wait:
            self._refuse_own(holder, owner)
        if owner.running is None:
            owner.running = set()
        if owner.state is SetState.FROZEN and not self._begins(owner):
            item = self._tables.turnings.get(owner.sid) or Turning(owner, False, finished=True)
        else:
            item = turn(self._tables, owner, begins=False)
            owner.state = SetState.FROZEN
            if self._tables.changes is not None:
                self._tables.changes.sids.add(owner.sid)
        return self._when_turned(item, wait=wait)

    def _refuse_own(self, holder: Holder, owner: IoasidSet) -> None:
        # Whoever would wait for what it has to acknowledge itself.
        if not any(
            each.tier <= DEVICE_TIER and (each.everywhere or each.number in owner.subscriptions)
            for each in holder.subscriptions.values()
        ):
            return

        def acknowledges(kind: EventKind, reach: int) -> bool:
            told = self._notifier.route(owner, kind).awaited[reach + 1 : DEVICE_TIER + 1]
            return any(each.holder is holder for tier in told for each in tier.values())

        def refuse(ioasid: int, kind: EventKind) -> None:
            reason = f"it has to acknowledge the {kind} itself"
            raise WouldDeadlock(holder.name, ioasid, reason)

        if acknowledges(UNBIND, -1):
            for ioasid in sorted(owner.spids.values()):
                record = owner.records[ioasid]
                if record.binding is not None and not record.free_pending:
                    refuse(ioasid, UNBIND)
        for ioasid in sorted(running(self._tables, self._notifier, owner)):
            for stage in owner.records[ioasid].chain:
                event = stage.event
                waits = (
                    each
                    for each in stage.waiting.values()
                    if each.tier <= DEVICE_TIER and event.seq not in each.dealt
                )
                if stage.ends_binding and (
                    any(each.holder is holder for each in waits)
                    or acknowledges(event.kind, stage.reach)
                ):
                    refuse(ioasid, event.kind)

    def thaw_set(self, _: Holder, request: ThawSet) -> Outcome:
        """Begin every binding of a set again."""
        owner = self._movable(request.sid)
        if owner.state is SetState.INCOMING and not self._begins(owner):
            raise SetFrozen(owner.sid, owner.state, token=owner.token)
        return self._let_run(owner)

    def export_set(self, _: Holder, request: ExportSet) -> Answer:
        """Look up all that a target has to know of a set."""
        owner = self._set(request.sid)
        turning = owner.sid in self._tables.turnings
        ran = 0
        if owner.state is SetState.FROZEN:
            # While bindings end or begin, any of them may be there.
            ran = len(owner.spids if turning else owner.running or ())
        if owner.state is not SetState.FROZEN or turning or ran:
            raise SetNotFrozen(owner.sid, owner.state, ran, token=owner.token)
        found = export(self._tables, owner)
        if not isinstance(found, Exporting):
            return found
        found.tickets.append(self._tables.new_ticket())
        return Waiting(found.tickets[-1])

    # -- the target ---------------------------------------------------------------------------

    def check_import(self, request: ImportSet) -> Waiting | int:
        """Check what is to be imported, and return how many IDs that is.

        `Waiting` if that takes long, and is to be asked again.
        """
        item = check(self._tables, request.export)
        if isinstance(item, int):
            return item
        item.tickets.append(self._tables.new_ticket())
        return Waiting(item.tickets[-1])

    def import_set(self, _: Holder, request: ImportSet, count: int) -> Outcome:
        """Make a set of what was exported, with as many IDs of this host, all or none."""
        tables, given = self._tables, request.export
        last = tables.capacity - 1
        low, high = self._range(request.min, last if request.max is None else request.max)
        group = self._group_or_none(request.group, "group")
        if given.token is not None and given.token in tables.tokens:
            raise TokenInUse(given.token, tables.tokens[given.token])
        affordable(tables, group, given.quota)
        chosen = tables.space.next_words(count, low, high) if count else []
        if chosen is None:
            raise RangeFull(low, high, count)
        owner = add_set(
            tables, given.token, given.token_type, given.quota, group, state=SetState.INCOMING
        )
        generation = tables.generation = tables.generation + bool(count)
        item = begin(tables, owner, given, chosen, generation)
        tables.begun.append(item)
        return partial(imported, tables, item)

    def activate_set(self, _: Holder, request: ActivateSet) -> Outcome:
        """Begin every binding of a set that came from elsewhere."""
        owner = self._movable(request.sid)
        if owner.state is SetState.FROZEN and not self._begins(owner):
            raise SetFrozen(owner.sid, owner.state, token=owner.token)
        return self._let_run(owner)

    # -- both ---------------------------------------------------------------------------------

    def _movable(self, sid: Any) -> IoasidSet:
        owner = self._set(sid)
        if owner.system:
            _check.refuse("sid", owner.sid, "a set that is not the system's: that stays here")
        if owner.state is SET_FREE_PENDING:
            raise SetFreePending(owner.sid, token=owner.token)
        return owner

    def _begins(self, owner: IoasidSet) -> bool:
        # Whether its bindings are on their way: to whoever asks next, it is as good as ACTIVE.
        item = self._tables.turnings.get(owner.sid)
        return item is not None and item.begins

    def _let_run(self, owner: IoasidSet) -> Outcome:
        tables = self._tables
        if owner.state is SetState.ACTIVE:
            return DONE
        if not self._begins(owner):
            # What becomes too much between two parts is taken: it was promised here.
            for _, record in sorted(tables.crowded.items()):
                if (
                    record.owner is owner
                    and record.spid is not None
                    and record.binding is None
                    and not record.free_pending
                ):
                    self._refuse_too_many(owner, record.ioasid)
        item = turn(tables, owner, begins=True)
        call_off(tables, owner)
        end_export(tables, owner)
        return self._when_turned(item)

    def _when_turned(self, item: Turning, *, wait: bool = False) -> Outcome:
        tables = self._tables
        if item in tables.begun:
            return partial(turned, tables, item, wait=wait)
        return turned(tables, item, wait=wait)
