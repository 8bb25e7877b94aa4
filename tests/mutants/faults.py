"""Small deliberate bugs, each one decision of what is below `ioasid` taken wrongly."""

from typing import Final

from tests.mutants.planting import Fault
from tests.mutants.service_faults import SERVICE_FAULTS

FAULTS: Final = (
    Fault(
        "reference-not-awaited",
        "Invariant 3: an ID with a reference is never in the pool",
        "core._lifecycle",
        "        if record.holders or record.granted:\n",
        "        if record.granted:\n",
    ),
    Fault(
        "grant-not-awaited",
        "Invariant 3: a granted reference is a reference",
        "core._lifecycle",
        "        if record.holders or record.granted:\n",
        "        if record.holders:\n",
    ),
    Fault(
        "free-not-awaited",
        "Invariant 3: an unacknowledged FREE keeps the ID in quarantine",
        "core._lifecycle",
        "stage.ends_life and not notifier.is_over(stage) for stage in record.chain\n",
        "False for stage in record.chain\n",
    ),
    Fault(
        "chain-not-awaited",
        "Order: RECLAIM comes only when the chain is empty",
        "core._lifecycle",
        "            if notifier.in_flight(record) or any(\n",
        "            if any(\n",
    ),
    Fault(
        "quarantined-id-allocated",
        "Life cycle: an ID in quarantine can't be allocated",
        "core._lifecycle",
        "        record.free_pending = True\n",
        (
            "        record.free_pending = True\n"
            "        owner.members[ioasid >> SHIFT] ^= 1 << (ioasid & MASK)\n"
        ),
    ),
    Fault(
        "free-sent-twice",
        "Life cycle: one FREE per life, whoever asks how often",
        "core._lifecycle",
        (
            "        if record.free_pending:\n"
            "            return\n"
            "        record.free_pending = True\n"
            "        tables.quarantine[ioasid] = record\n"
        ),
        ("        tables.quarantine[ioasid] = record\n        record.free_pending = True\n"),
    ),
    Fault(
        "reclaim-not-told",
        "Life cycle: RECLAIM is sent when the ID is back in the pool",
        "core._lifecycle",
        "            self._notifier.tell_all(owner, RECLAIM, ioasid, generation, spid, data)\n",
        "            pass\n",
    ),
    Fault(
        "spid-left-behind",
        "Invariant 4: find_by_spid is the inverse of attach_spid",
        "core._lifecycle",
        ("        if record.spid is not None:\n            del owner.spids[record.spid]\n"),
        "",
    ),
    Fault(
        "quota-not-given-back",
        "Invariant 1: available, reserved and quotas sum up to the capacity",
        "core._lifecycle",
        "        refund(tables, owner.group, owner.quota)\n",
        "",
    ),
    Fault(
        "token-kept",
        "free_set: a destroyed set goes, its token with it",
        "core._lifecycle",
        "            del tables.tokens[owner.token]\n",
        "            pass\n",
    ),
    Fault(
        "wrong-bit-released",
        "Invariant 2: an ID is in exactly one set or in the pool",
        "core._lifecycle",
        "\n        tables.space.release(owner, ioasid, 1 << (ioasid & MASK))\n",
        "\n        tables.space.release(owner, ioasid, 1 << (ioasid & MASK ^ 1))\n",
    ),
    Fault(
        "eviction-keeps-references",
        "evict: the holder's references are dropped",
        "core._lifecycle",
        "        record.holders = without(record.holders, holder)\n        del holder",
        "        del holder",
    ),
    Fault(
        "waiter-answered-early",
        "free_set(wait=True): answers when everything is reclaimed",
        "core._lifecycle",
        (
            "            if not waiter.pending:\n"
            "                del self._tables.waiters[waiter.ticket]\n"
        ),
        "            if self._tables.waiters.pop(waiter.ticket, None):\n",
    ),
    Fault(
        "abandoned-ticket-answered",
        "Invariant 8: who gave up waiting gets no reply",
        "core._lifecycle",
        "        waiter = self._tables.waiters.pop(ticket, None)\n",
        "        waiter = None\n",
    ),
    Fault(
        "waits-for-itself",
        "Waiting for oneself is refused with EDEADLK",
        "core._lifecycle",
        ("            if reason is not None:\n                raise WouldDeadlock"),
        ("            if not holder.name:\n                raise WouldDeadlock"),
    ),
    Fault(
        "tier-not-awaited",
        "Invariant 6: no lower tier before every higher one acknowledged",
        "core._notifier",
        "        while not stage.waiting:\n",
        "        while True:\n",
    ),
    Fault(
        "lower-tier-first",
        "Priority: CPU before DEVICE before IOMMU before LAST",
        "core._notifier",
        "            tiers[each.tier][number] = each\n",
        "            tiers[LAST_TIER - each.tier][number] = each\n",
    ),
    Fault(
        "next-event-starts-early",
        "Order: an event starts when the one before reached its last tier",
        "core._notifier",
        (
            "            if index and stage.reach < 0 and self._in_flight(chain[:index]):\n"
            "                break\n"
        ),
        "",
    ),
    Fault(
        "event-overtakes-in-a-tier",
        "Invariant 5: every subscriber sees an ID's events in seq order",
        "core._notifier",
        (
            "                if any(self._has_left(each, tier) for each in chain[:index]):\n"
            "                    return\n"
        ),
        "",
    ),
    Fault(
        "grant-not-made-with-bind",
        "Holding: the grant is made in the step that emits BIND",
        "core._notifier",
        "                grant_all(tables, tier, record, seq)\n",
        "                pass\n",
    ),
    Fault(
        "grant-forgotten-for-late-joiner",
        "Holding: who is offered a BIND is granted its binding",
        "core._notifier",
        "                grant_all(self._tables, stage.waiting, stage.record, stage.binding)\n",
        "                pass\n",
    ),
    Fault(
        "grant-forgotten-in-resync",
        "A Resync grants the binding of every bound ID that it lists",
        "core._resyncs",
        "            grant(tables, subscription, record, binding)\n",
        "",
    ),
    Fault(
        "grant-dropped-with-bind",
        "Holding: a grant lasts until the end of its binding is acknowledged",
        "core._notifier",
        (" and stage.event.kind is not BIND:\n            drop_grant(self._tables, "),
        (":\n            drop_grant(self._tables, "),
    ),
    Fault(
        "grant-never-dropped",
        "Holding: acknowledging UNBIND or FREE drops the grant",
        "core._notifier",
        "            drop_grant(self._tables, subscription, stage.binding)\n",
        "            pass\n",
    ),
    Fault(
        "grant-counted-per-holder",
        "Holding: a grant belongs to one binding, not to the ID",
        "core._notifier",
        "            drop_grant(self._tables, subscription, stage.binding)\n",
        (
            "            for binding, record in tuple(subscription.grants.items()):\n"
            "                if record is stage.record:\n"
            "                    drop_grant(self._tables, subscription, binding)\n"
        ),
    ),
    Fault(
        "kinds-ignored",
        "Kinds: a subscriber gets the kinds it asked for",
        "core._notifier",
        "            if kind in each.kinds\n",
        "",
    ),
    Fault(
        "scope-ignored",
        "Scope: an event of one set goes to its own subscribers",
        "core._notifier",
        "for index in (self._tables.system_subscriptions, owner.subscriptions)",
        "for index in (self._tables.subscriptions,)",
    ),
    Fault(
        "resync-forgets-pending",
        "Lag: replaced events count as acknowledged when the Resync is",
        "core._resyncs",
        "Fold(subscription.folded, ",
        "Fold({}, ",
    ),
    Fault(
        "resync-shows-current-state",
        "Invariant 6: a Resync reveals nothing that is on its way",
        "core._resyncs",
        "        if stage.reach < tier and stage.event.publisher is None:\n",
        "        if stage.reach < -1:\n",
    ),
    Fault(
        "resync-keeps-stale-grants",
        "A Resync's acknowledgement drops grants that it no longer shows",
        "core._notifier",
        "            subscription.deal(entry.folded, entry.stale)\n",
        "            subscription.deal(entry.folded, ())\n",
    ),
    Fault(
        "suspended-acknowledges",
        "Invariant 9: a suspended holder's events stay unacknowledged",
        "core._notifier",
        (
            "            self._fold(subscription, seq, offered, entry)\n"
            "        subscription.outstanding.clear()\n"
        ),
        (
            "            if isinstance(entry, Stage):\n"
            "                self._acknowledge_stage(subscription, entry)\n"
            "        subscription.outstanding.clear()\n"
        ),
    ),
    Fault(
        "leaver-still-awaited",
        "Holders: who leaves has acknowledged everything",
        "core._notifier",
        "            subscription.deal(subscription.take_stages(), subscription.grants)\n",
        "            subscription.deal({}, subscription.grants)\n",
    ),
    Fault(
        "queue-unbounded",
        "Lag: a subscriber's queue is bounded",
        "core._notifier",
        "            if subscription.resync_due or len(outstanding) > subscription.queue_size:\n",
        "            if subscription.resync_due:\n",
    ),
    Fault(
        "token-subscription-waits-on",
        "Scope: a token subscription joins when its set is made",
        "core._set_handlers",
        "        owner.subscriptions.update(tables.token_subscriptions.get(token, {}))\n",
        "",
    ),
    Fault(
        "quota-off-by-one",
        "Invariant 1: allocated <= quota",
        "core._ioasid_handlers",
        "        if owner.allocated >= owner.quota:\n",
        "        if owner.allocated > owner.quota:\n",
    ),
    Fault(
        "quota-checked-afterwards",
        "Invariant 7: a refused request leaves the state as it was",
        "core._ioasid_handlers",
        (
            "        if owner.allocated >= owner.quota:\n"
            "            raise QuotaExceeded(owner.sid, owner.quota, owner.allocated, 1, "
            "token=owner.token)\n"
            "        generation = tables.generation + 1\n"
            "        ioasid = tables.space.take(low, high, owner, generation)\n"
        ),
        (
            "        generation = tables.generation + 1\n"
            "        ioasid = tables.space.take(low, high, owner, generation)\n"
            "        if owner.allocated >= owner.quota:\n"
            "            raise QuotaExceeded(owner.sid, owner.quota, owner.allocated, 1, "
            "token=owner.token)\n"
        ),
    ),
    Fault(
        "capacity-made-by-adjusting",
        "Invariant 1: the difference moves from or to available",
        "core._set_handlers",
        "            charge(tables, owner.group, quota - owner.quota)\n",
        "            pass\n",
    ),
    Fault(
        "charge-kept-on-refusal",
        "Groups: a refused request charges nothing",
        "core._budget",
        "            raise CapacityExhausted(least, left)\n        raise",
        "            raise CapacityExhausted(least, left)\n        group.used += 1\n        raise",
    ),
    Fault(
        "charge-kept-at-the-parent",
        "Groups: a limit goes back to where it came from",
        "core._group_handlers",
        "        refund(tables, group.parent, group.limit)\n",
        "        refund(tables, None, group.limit)\n",
    ),
    Fault(
        "charge-kept-on-destruction",
        "Groups: a set's quota goes with its last ID, at every level",
        "core._lifecycle",
        "        refund(tables, owner.group, owner.quota)\n",
        "        if owner.group is None:\n            refund(tables, None, owner.quota)\n",
    ),
    Fault(
        "charge-lost-on-restore",
        "Groups: a restored set is in its group",
        "core._restore",
        "        charge(tables, owner.group, owner.quota)\n",
        "        charge(tables, None, owner.quota)\n",
    ),
    Fault(
        "limit-not-charged-above",
        "Groups: the sum of what is below never exceeds a limit, at every level",
        "core._group_handlers",
        "        charge(tables, parent, limit)\n",
        "        charge(tables, None, limit)\n",
    ),
    Fault(
        "reserved-number-handed-out",
        "Reserved numbers are never given out",
        "core._tables",
        "        self.space.withhold(first, last)\n",
        "        pass\n",
    ),
    Fault(
        "whole-words-not-withheld",
        "Reserved numbers are never given out, however many there are",
        "core._space",
        "            return FULL if self._is_full(number) else 0\n",
        "            return 0\n",
    ),
    Fault(
        "position-lost-in-a-snapshot",
        "Order of reuse: CYCLIC goes on where it was",
        "core._capture",
        "        position=tables.position or 0,\n",
        "        position=0,\n",
    ),
    Fault(
        "turn-ends-at-the-top",
        "Order of reuse: round and round",
        "core._reuse",
        "            ioasid = self.take_lowest(low, start - 1, owner, generation)\n",
        "            ioasid = self.take_lowest(high, high, owner, generation)\n",
    ),
    Fault(
        "free-many-frees-some",
        "free_many: refused, none is freed",
        "core._range_handlers",
        "            freed.append((first, wanted ^ stale))\n",
        "            freed.append((first, wanted ^ stale))\n"
        "            self._life.free_all(owner, freed[-1:])\n",
    ),
    Fault(
        "put-drops-another-holders",
        "References are counted per holder",
        "core._ioasid_handlers",
        "        record.holders = without(record.holders, holder)\n        self._life",
        (
            "        record.holders = without(record.holders, next(iter(record.holders)))\n"
            "        self._life"
        ),
    ),
    Fault(
        "holders-copied",
        "Taking and dropping a reference costs the same, however many have one",
        "core._holders",
        "        if len(crowd) < FEW:\n",
        "        if len(crowd) < FEW * 10_000:\n",
    ),
    Fault(
        "last-grant-of-several",
        "References are counted per holder",
        "core._holders",
        "    if crowd[one] > 1:\n",
        "    if crowd[one] > 2:\n",
    ),
    Fault(
        "put-without-a-reference",
        "put: EINVAL without a reference",
        "core._ioasid_handlers",
        "            raise NotReferenced(holder.name, ioasid)\n",
        "            return Released(False)\n",
    ),
    Fault(
        "get-in-quarantine",
        "Life cycle: no new reference while FREE_PENDING",
        "core._handlers",
        ("            raise IoasidFreePending(ioasid)\n        return owner\n"),
        ("            pass\n        return owner\n"),
    ),
    Fault(
        "spid-not-unique",
        "Invariant 4: spids are unique within a set",
        "core._ioasid_handlers",
        (
            "        if spid in owner.spids:\n"
            "            raise SpidInUse(owner.sid, spid, owner.spids[spid], token=owner.token)\n"
        ),
        "",
    ),
    Fault(
        "freeze-waits-for-cpus-alone",
        "Migration: a freeze is answered when CPU and DEVICE acknowledged that nothing runs",
        "core._notifier",
        "                if any(told[stage.reach + 1 : DEVICE_TIER + 1]):\n",
        "                if any(told[stage.reach + 1 : DEVICE_TIER]):\n",
    ),
    Fault(
        "freeze-forgets-the-unbound",
        "Migration: a device that drains what was unbound before the freeze still runs it",
        "core._notifier",
        "        return waited and all(",
        "        return False and all(",
    ),
    Fault(
        "freeze-answered-at-once",
        "Migration: a freeze is answered when nothing runs, and not when it is decided",
        "core._freezes",
        "    if item.finished and not item.owner.running:\n",
        "    if item.finished:\n",
    ),
    Fault(
        "running-set-exported",
        "Migration: what a device may still run is exported by nobody",
        "core._migration_handlers",
        "        if owner.state is not SetState.FROZEN or turning or ran:\n",
        "        if owner.state is not SetState.FROZEN or turning:\n",
    ),
    Fault(
        "frozen-set-bound",
        "Migration: no new bind in a set that is frozen or incoming",
        "core._handlers",
        "        if owner.state is not SET_ACTIVE:\n            raise",
        "        if owner.state is None:\n            raise",
    ),
    Fault(
        "frozen-set-shown-as-bound",
        "Migration: a Resync shows no binding of what is frozen",
        "core._resyncs",
        "    return IoasidState.ACTIVE, record.bound_spid, record.binding\n",
        "    return IoasidState.ACTIVE, record.spid, record.binding\n",
    ),
    Fault(
        "quarantine-exported",
        "Migration: quarantined IDs stay on the source",
        "core._lookups",
        "            if record.free_pending:\n                members",
        "            if False:\n                members",
    ),
    Fault(
        "import-in-halves",
        "Migration: an import is one request, all or none",
        "core._migration_handlers",
        "        affordable(tables, group, given.quota)\n",
        "        affordable(tables, group, 1)\n",
    ),
    Fault(
        "import-runs",
        "Migration: an imported set is inert until it is activated",
        "core._migration_handlers",
        "state=SetState.INCOMING\n        )\n",
        "state=SetState.ACTIVE\n        )\n",
    ),
    Fault(
        "too-many-events-taken",
        "Order: an ID with 16 events under way refuses another with EAGAIN",
        "core._handlers",
        "            if in_flight >= MAX_IN_FLIGHT:\n",
        "            if in_flight < 0:\n",
    ),
    Fault(
        "foreign-set-let-in",
        "Permission: EACCES when the ID belongs to another set",
        "core._handlers",
        ("            raise NotOfThisSet(ioasid, sid, token=self._set(sid).token)\n        return"),
        ("            pass\n        return"),
    ),
    Fault(
        "crash-taken-for-leaving",
        "Invariant 9: who crashes with references is suspended",
        "core._holder_handlers",
        "        if not holder.references and not any(each.hold for each in subscriptions):\n",
        "        if subscriptions is not None:\n",
    ),
    Fault(
        "unbind-sent-after-free",
        "detach_spid: silent once FREE was sent",
        "core._ioasid_handlers",
        "        if not record.free_pending and record.binding is not None:\n",
        "        if record.binding is not None:\n",
    ),
    Fault(
        "set-being-freed-allocates",
        "alloc: EBUSY when the set is being freed",
        "core._handlers",
        "            raise SetFreePending(owner.sid, token=owner.token)\n        if owner",
        "            return\n        if owner",
    ),
    Fault(
        "reference-found-in-quarantine",
        "find_by_spid: EBUSY with a reference while FREE_PENDING",
        "core._ioasid_handlers",
        "                raise IoasidFreePending(ioasid)\n            self._refuse_inert",
        "                pass\n            self._refuse_inert",
    ),
    Fault(
        "comeback-without-resync",
        "Holders: who comes back starts with a Resync",
        "core._subscription_handlers",
        "            self._notifier.attach(present, resync=True)\n",
        "            self._notifier.attach(present, resync=False)\n",
    ),
    Fault(
        "set-destroyed-too-early",
        "free_set: a set goes when its last ID is reclaimed",
        "core._lifecycle",
        "            or owner.allocated\n",
        "            or owner.allocated < 0\n",
    ),
    Fault(
        "eviction-keeps-grants",
        "evict: the holder's references are dropped, granted ones too",
        "core._notifier",
        "            subscription.deal(subscription.take_stages(), subscription.grants)\n",
        "            subscription.deal(subscription.take_stages(), ())\n",
    ),
    Fault(
        "stale-routes",
        "Who matches is decided when the tier is reached",
        "core._notifier",
        (
            "                owner.subscriptions[number] = subscription\n"
            "                owner.routes.clear()\n"
        ),
        "                owner.subscriptions[number] = subscription\n",
    ),
    Fault(
        "unseen-grants-kept",
        "A binding that began and ended undelivered leaves no grant",
        "core._notifier",
        (
            "        if stage is not None and (subscription.unseen or subscription.listed):\n"
            "            end_unseen(tables, subscription, stage)\n"
        ),
        "",
    ),
    Fault(
        "delivered-and-unseen",
        "What is in somebody's hands keeps its grant",
        "core._notifier",
        "                    tier[number].unseen.discard(seq)\n",
        "                    pass\n",
    ),
    Fault(
        "shown-and-unseen",
        "What is in somebody's hands keeps its grant: what a Resync showed, too",
        "core._resyncs",
        "    subscription.listed = set()\n",
        "    subscription.unlist()\n",
    ),
    Fault(
        "resync-names-every-id",
        "Plain IDs stand in a Resync as ranges",
        "core._listings",
        "        if spid is None and data is None and state is IoasidState.ACTIVE:\n",
        "        if False:\n",
    ),
    Fault(
        "range-over-a-gap",
        "Plain IDs stand in a Resync as ranges, and no others",
        "core._listings",
        "    if start != end + 1:\n",
        "    if start > end + 2:\n",
    ),
    Fault(
        "range-of-two-lives",
        "A Resync carries the generation of every ID, those in ranges too",
        "core._listings",
        "        or goes_on != generation + step * (start - first)\n",
        "",
    ),
    Fault(
        "range-takes-a-life-for-the-next",
        "A Resync carries the generation of every ID, those in ranges too",
        "core._space",
        "    while last < few and lives[last + 1] == expected:\n",
        "    while last < few:\n",
    ),
    Fault(
        "later-lives-freed",
        "Parts: what is allocated meanwhile was not there when it was asked",
        "core._parts",
        "            if space.generation(first + bit) <= item.until:\n",
        "            if first + bit >= 0:\n",
    ),
    Fault(
        "part-without-bound",
        "Parts: a request deals with no more IDs than a part at once",
        "core._parts",
        "            if left <= 0:\n                item.chosen.append",
        "            if left is None:\n                item.chosen.append",
    ),
    Fault(
        "answered-after-one-part",
        "Parts: the answer comes when all is done",
        "core._parts",
        "        if item.finished:\n            assert item.answer is not None",
        "        if not item.wait:\n            assert item.answer is not None",
    ),
    Fault(
        "resync-part-without-bound",
        "Parts: a request deals with no more IDs than a part at once",
        "core._resyncs",
        "            high = known[left] - 1\n            del known[left:]\n",
        "            pass\n",
    ),
    Fault(
        "resync-follows-no-binding",
        "Parts: a Resync shows what there is when it is delivered",
        "core._lifecycle",
        (
            "                    relist(tables, record.owner, ioasid, ioasid)\n"
            "            if tables.changes"
        ),
        "                    pass\n            if tables.changes",
    ),
    Fault(
        "resync-follows-no-allocation",
        "Parts: a Resync shows what there is when it is delivered",
        "core._notifier",
        "        if tables.relistings:\n            relist(tables, owner, ioasid, ioasid)\n",
        "",
    ),
    Fault(
        "resync-follows-nothing-untold",
        "Parts: a Resync shows what there is when it is delivered, told of or not",
        "core._lifecycle",
        (
            "                if tables.relistings:\n"
            "                    relist(tables, owner, lowest, first + plain.bit_length() - 1)\n"
        ),
        "",
    ),
    Fault(
        "many-told-to-the-first",
        "Events: nobody who is told of allocations misses one that it does not lag behind",
        "core._notifier",
        "            while left and any(each.folded_since is None for each in told):\n",
        "            while left and all(each.folded_since is None for each in told):\n",
    ),
    Fault(
        "range-whole-after-a-change",
        "Parts: a Resync shows what there is when it is delivered, in ranges too",
        "core._resyncs",
        "        if after.last > last:\n",
        "        if False:\n",
    ),
    Fault(
        "resync-grants-before-it-shows",
        "A binding that ended before its Resync was delivered leaves no grant",
        "core._grants",
        "        binding in subscription.unseen or binding in subscription.listed\n",
        "        binding in subscription.unseen\n",
    ),
    Fault(
        "resync-ends-nothing",
        "Resync and holding: grants of what it no longer shows are dropped with it",
        "core._notifier",
        "                subscription.missed.add(binding)\n",
        "                pass\n",
    ),
    Fault(
        "resync-for-nobody",
        "Parts: whoever is gone is made no Resync",
        "core._notifier",
        ("        call_off(self._tables, subscription)\n        subscription.resync_due = True\n"),
        "        subscription.resync_due = True\n",
    ),
    Fault(
        "place-of-a-resync-lost",
        "Parts: a restored allocator goes on with what is left",
        "core._restore",
        "                relist(tables, owner, first, first | MASK)\n",
        "                pass\n",
    ),
    Fault(
        "ended-while-let-go-of",
        "Parts: a subscription is there until all that it had is let go of, and no longer",
        "core._parts",
        "                return not (subscription.dealt or subscription.spent or ended)\n",
        "                return not (subscription.dealt or subscription.spent)\n",
    ),
    Fault(
        "gone-before-it-let-go",
        "Parts: a holder is there until all that it had is let go of",
        "core._parts",
        "        if not item.order and not any(\n",
        "        if not item.order or not any(\n",
    ),
    Fault(
        "work-not-in-the-snapshot",
        "Parts: a restored allocator goes on with what is left",
        "core._capture",
        "        work=tuple(map(_take_work, tables.work)),\n",
        "        work=(),\n",
    ),
    Fault(
        "no-part-after-the-first",
        "Parts: the allocator goes on by itself",
        "actors._allocator",
        "        if core.has_work and not self._going_on:\n",
        "        if core.has_work and self._going_on:\n",
    ),
    Fault(
        "joining-settles-nothing",
        "Whoever joins between the tiers of an event is told at once",
        "core._notifier",
        (
            "        # What nobody had yet to reach may have somebody to reach again.\n"
            "        self._reconsider(subscription)\n"
        ),
        "",
    ),
    Fault(
        "ages-begin-again",
        "Ages go on where they were, whatever the clock of another process shows",
        "core._restore",
        '(_check.time(offer.offered, "offered"), entry)',
        "(tables.now, entry)",
    ),
    Fault(
        "clock-of-another-process",
        "Ages go on where they were, whatever the clock of another process shows",
        "actors._allocator",
        "    return lambda: max(begun, now() + moved)\n",
        "    return now\n",
    ),
    Fault(
        "stale-life-let-in",
        "Identity: a generation of another life is refused with ESTALE",
        "core._handlers",
        "                raise StaleIoasid(ioasid, generation, current)\n",
        "                pass\n",
    ),
    Fault(
        "stale-unbind-let-in",
        "Identity: a generation is checked by every request that takes one",
        "core._ioasid_handlers",
        (
            "        owner = self._owner(request.ioasid, request.sid, request.generation)\n"
            "        ioasid = request.ioasid\n"
            "        record = owner.records.get(ioasid)\n"
            "        if record is None or record.spid is None:\n"
        ),
        (
            "        owner = self._owner(request.ioasid, request.sid, None)\n"
            "        ioasid = request.ioasid\n"
            "        record = owner.records.get(ioasid)\n"
            "        if record is None or record.spid is None:\n"
        ),
    ),
    Fault(
        "stale-lives-freed-at-once",
        "free_many: with a generation, every one of them has to be in that life",
        "core._range_handlers",
        "                if current != generation:\n",
        "                if current > generation + 1:\n",
    ),
    Fault(
        "many-in-an-old-life",
        "Invariant 10: a generation is never given out twice",
        "core._ioasid_handlers",
        "        tables.generation += 1\n",
        "",
    ),
    Fault(
        "set-number-used-again",
        "Invariant 10: a sid is never given out twice",
        "core._set_handlers",
        "    sid = tables.next_sid\n",
        "    sid = next(n for n in range(tables.next_sid + 1) if n not in tables.sets)\n",
    ),
    Fault(
        "set-numbers-lost-in-a-snapshot",
        "Invariant 10: a sid is never given out twice, not across restores either",
        "core._capture",
        "        next_sid=tables.next_sid,\n",
        "        next_sid=max(tables.sets, default=-1) + 1,\n",
    ),
    Fault(
        "crash-undone-by-a-snapshot",
        "Every state that can be reached restores: who is suspended comes back with a Resync",
        "core._capture",
        "        each.attached,\n",
        "        True,\n",
    ),
    Fault(
        "deferred-lost-in-a-snapshot",
        "Every state that can be reached restores: what was deferred is deferred",
        "core._capture",
        "                seq in each.deferred,\n",
        "                False,\n",
    ),
    Fault(
        "lives-lost-in-a-snapshot",
        "Invariant 10: a generation is never given out twice, not across restores either",
        "core._capture",
        "        generation=tables.generation,\n",
        (
            "        generation=max(\n"
            "            (\n"
            "                tables.space.generation(ioasid)\n"
            "                for owner in tables.sets.values()\n"
            "                for ioasid in owner.ioasids()\n"
            "            ),\n"
            "            default=0,\n"
            "        ),\n"
        ),
    ),
    Fault(
        "lives-not-restored",
        "Identity: a restored ID is in the life that it was in",
        "core._restore",
        "        if offsets:\n",
        "        if False:\n",
    ),
    Fault(
        "event-of-another-life",
        "Identity: an event carries the generation of the life that it is about",
        "core._notifier",
        "        generation = tables.space.generation(record.ioasid)\n",
        "        generation = tables.generation\n",
    ),
    Fault(
        "reclaim-of-another-life",
        "Identity: a RECLAIM carries the generation of the life that it ends",
        "core._lifecycle",
        "        generation = tables.space.generation(ioasid) if told else 0\n",
        "        generation = tables.generation\n",
    ),
    Fault(
        "two-lives-for-one",
        "Subscriber's table: a later life ends the one before",
        "core._table",
        "            if life.generation != event.generation:\n",
        "            if False:\n",
    ),
    Fault(
        "lapse-keeps-what-is-over",
        "Lag: a lapse keeps what somebody waits for, and nothing else",
        "core._notifier",
        "for number, stage in entry.folded.items() if stage.waiting}\n",
        "for number, stage in entry.folded.items()}\n",
    ),
    Fault(
        "lowest-free-remembered",
        "alloc: the lowest free ID in the range",
        "core._space",
        "            self._run_end = lowest\n",
        "            pass\n",
    ),
    Fault(
        "table-keeps-a-freed-binding",
        "Subscriber's table: the end of a life ends its binding, too",
        "core._table",
        "        _BOUND: (_END_BINDING, _END_LIFE),\n    },\n    EventKind.RECLAIM: {\n",
        "        _BOUND: (_END_LIFE,),\n    },\n    EventKind.RECLAIM: {\n",
    ),
    Fault(
        "table-takes-quarantine-for-life",
        "Subscriber's table: what a Resync shows in quarantine is over",
        "core._table",
        "for each in resync if each.state is IoasidState.ACTIVE]\n",
        "for each in resync]\n",
    ),
    Fault(
        "table-ends-anothers-spid",
        "Subscriber's table: a spid may have been given to another ID meanwhile",
        "core._table",
        "        if of_sets.get(binding.sid) is binding:\n",
        "        if binding.sid in of_sets:\n",
    ),
    Fault(
        "table-heeds-publishers",
        "notify: a publisher's own event changes nothing",
        "core._table",
        "        if event.publisher is not None:\n            return ()\n",
        "",
    ),
    Fault(
        "table-keeps-a-moved-binding",
        "Subscriber's table: a Resync that shows another spid ends the binding",
        "core._table",
        "            if self._bindings.get(ioasid) not in (None, bindings.get(ioasid)):\n",
        "            if ioasid in self._bindings and ioasid not in bindings:\n",
    ),
    Fault(
        "reply-lost-at-shutdown",
        "Invariant 8: one reply, also when the allocator is shut down",
        "actors._allocator",
        "(*self._outage.kept, *self._taken, *self.mailbox.close())",
        "(*self._outage.kept, *self._taken, *self.mailbox.close()[:0])",
    ),
    Fault(
        "waiter-lost-at-shutdown",
        "Invariant 8: one reply, also to those who wait for a reclaim",
        "actors._allocator",
        "        left += [each.reply for each in self._waiting.values()]\n",
        "",
    ),
    Fault(
        "cancelled-request-decided",
        "A call cancelled before it was decided is not decided",
        "actors._allocator",
        "            elif reply.cancelled():\n                continue\n",
        "",
    ),
    Fault(
        "abandoned-wait-kept",
        "A caller that gives up waiting is forgotten",
        "actors._allocator",
        "            self._post(DRIVER, Abandon(ticket))\n",
        "            pass\n",
    ),
    Fault(
        "session-undo-forgotten",
        "A session that its cancelled opener never got is closed",
        "core._undo",
        "            return number, SuspendSession() if resumed else CloseSession()\n",
        "            return None\n",
    ),
    Fault(
        "crashed-session-closed",
        "Holders: a crash suspends, and closes nothing",
        "actors._session",
        "            port.leave(SuspendSession())\n",
        "            port.leave(CloseSession())\n",
    ),
    Fault(
        "withdrawn-message-delivered",
        "Lag: what a Resync replaces is not delivered any more",
        "actors._queue",
        "        while messages and messages[-1].seq != keep:\n            messages.pop()\n",
        "        pass\n",
    ),
    Fault(
        "acknowledged-when-taken",
        "Acknowledgement: by coming back, not by taking",
        "actors._subscription",
        "        self._in_hand = message = messages.popleft()\n        return message\n",
        (
            "        message = messages.popleft()\n"
            "        self.acknowledge(message)\n"
            "        return message\n"
        ),
    ),
    Fault(
        "acknowledgement-not-sent",
        "Acknowledgement: by coming back for the next event",
        "actors._local_port",
        "        self._dealt_with.append((subscription, message.seq))\n",
        "        pass\n",
    ),
    Fault(
        "subscription-undo-forgotten",
        "A subscription that its cancelled subscriber never got is ended",
        "core._undo",
        "            return session, Detach(number) if resumed else Unsubscribe(number)\n",
        "            return None\n",
    ),
    Fault(
        "alloc-undo-forgotten",
        "Cancellation: an ID that nobody was given is freed",
        "core._undo",
        "            return session, Free(ioasid, generation=generation)\n",
        "            return None\n",
    ),
    Fault(
        "alloc-many-undo-forgotten",
        "Cancellation: IDs that nobody was given are freed",
        "core._undo",
        "            return session, FreeMany(sid, ranges, generation, missing_ok=True)\n",
        "            return None\n",
    ),
    Fault(
        "undone-all-or-none",
        "Cancellation: of IDs that nobody was given, those that are left are freed",
        "core._undo",
        "            return session, FreeMany(sid, ranges, generation, missing_ok=True)\n",
        "            return session, FreeMany(sid, ranges, generation)\n",
    ),
    Fault(
        "later-life-undone",
        "Cancellation: an ID that somebody else was given meanwhile is left alone",
        "core._range_handlers",
        "            freed.append((first, wanted ^ stale))\n",
        "            freed.append((first, wanted))\n",
    ),
    Fault(
        "set-undo-forgotten",
        "Cancellation: a set that nobody can name is freed",
        "core._undo",
        "AllocSet(token=None), SetRecord(sid):\n            return session, FreeSet(sid)\n",
        "AllocSet(token=None), SetRecord(sid):\n            return None\n",
    ),
    Fault(
        "named-set-undone",
        "Cancellation: a set with a token stands",
        "core._undo",
        "        case AllocSet(token=None), SetRecord(sid):\n",
        "        case AllocSet(), SetRecord(sid):\n",
    ),
    Fault(
        "get-undo-forgotten",
        "Cancellation: a reference that nobody was told of is put",
        "core._undo",
        "        case Get(ioasid), Done():\n            return session, Put(ioasid)\n",
        "        case Get(ioasid), Done():\n            return None\n",
    ),
    Fault(
        "find-and-get-undo-forgotten",
        "Cancellation: a reference taken with find_by_spid is put",
        "core._undo",
        (
            "        case FindBySpid(get=True), Allocated(ioasid, generation):\n"
            "            return session, Put(ioasid, generation=generation)\n"
        ),
        (
            "        case FindBySpid(get=True), Allocated(ioasid, generation):\n"
            "            return None\n"
        ),
    ),
    Fault(
        "plain-find-undone",
        "Cancellation: what took nothing gives nothing back",
        "core._undo",
        "        case FindBySpid(get=True), Allocated(ioasid, generation):\n",
        "        case FindBySpid(), Allocated(ioasid, generation):\n",
    ),
    Fault(
        "no-undo-of-an-answer-that-is-there",
        "Cancellation: whoever is cancelled one step late has its answer undone",
        "actors._allocator",
        (
            "            if not isinstance(answer, Exception):\n"
            "                self._undo(session, request, answer)\n"
        ),
        "            pass\n",
    ),
    Fault(
        "no-undo-while-committing",
        "Cancellation: what is given up while it is committed is undone",
        "actors._allocator",
        (
            "                    if not isinstance(answer, IoasidError):\n"
            "                        self._undo(session, request, answer, batch.fate)\n"
        ),
        "",
    ),
    Fault(
        "no-undo-of-a-native-cancel",
        "Cancellation: an asyncio task cancelled while its request is committed leaves nothing",
        "actors._allocator",
        "                self._undo(envelope.session, envelope.request, answer)\n",
        "                pass\n",
    ),
    Fault(
        "crashed-subscriber-unsubscribes",
        "Invariant 9: a crashed subscriber's events stay unacknowledged",
        "actors._subscription",
        "Unsubscribe(number) if error is None else Detach(number)",
        "Unsubscribe(number)",
    ),
    Fault(
        "flood-not-held-back",
        "Mailbox: every lane has its share of a batch",
        "actors._mailbox",
        "                mailbox._share = SHARE\n",
        "                pass\n",
    ),
    Fault(
        "leaver-overtaken",
        "Mailbox: all of a lane that leaves comes before anything of another one",
        "actors._mailbox",
        (
            "        mailbox._active.remove(self)\n"
            "        mailbox._leaving += self._items\n"
            "        self._items.clear()\n"
        ),
        "",
    ),
    Fault(
        "lane-out-of-order",
        "Mailbox: items of one lane come in the order in which they were put",
        "actors._mailbox",
        "wakeup.set_result(None)\n        items.append(item)\n\n    def tell",
        "wakeup.set_result(None)\n        items.appendleft(item)\n\n    def tell",
    ),
    Fault(
        "rest-of-a-lane-lost",
        "Mailbox: an item is handed out or returned by close, never lost",
        "actors._mailbox",
        "                if not items:\n                    active.pop()\n",
        "                active.pop()\n",
    ),
    Fault(
        "released-while-deciding",
        "Decide, commit, release: nothing leaves before the batch is decided",
        "actors._allocator",
        "                answers.append((reply, answer, envelope))\n",
        "                reply.set_result(answer)\n",
    ),
    Fault(
        "overdue-not-logged",
        "A subscriber that hangs shows up on the log, by name",
        "actors._deadlines",
        "            if (each.subscription, each.oldest_seq) not in self._reported:\n",
        "            if (each.subscription, each.oldest_seq) in self._reported:\n",
    ),
    Fault(
        "crash-answers-nobody",
        "Invariant 8: one reply, also when the actor crashes on it",
        "actors._actor",
        "        self._owed.fail(self._take_in_hand(), crashed, cause=error)\n",
        "        self._take_in_hand()\n",
    ),
    Fault(
        "stop-answers-nobody",
        "Invariant 8: one reply, also when the actor stops before it",
        "actors._actor",
        "        self._owed.fail(pending, self.closed)\n",
        "        self._owed.fail([], self.closed)\n",
    ),
    Fault(
        "restarts-for-ever",
        "Supervision: after a bounded number of restarts it gives up",
        "actors._supervision",
        "        self.in_a_row += 1\n",
        "",
    ),
    Fault(
        "request-before-events",
        "An actor takes what its subscription has before every request",
        "actors._actor",
        "                    await self._take(self.events)\n",
        "                    pass\n",
    ),
    Fault(
        "vm-gone-too-early",
        "A VM is gone when everything it had is reclaimed",
        "actors._host",
        "                await self._clear_away(vm)\n",
        "",
    ),
    Fault(
        "crash-ends-the-clearing-away",
        "A VM is gone when everything it had is reclaimed",
        "actors._host",
        "        except ActorCrashed:\n            crashed = True\n",
        "        except ActorCrashed:\n            return\n",
    ),
    Fault(
        "refused-process-bind-kept",
        "sva_bind: what the device refuses is undone",
        "actors._host",
        "                    self._tasks.start_soon(self._unbind, vdcm, process, None)\n",
        "                    pass\n",
    ),
    Fault(
        "another-vms-id-freed",
        "VFIO refuses every ID that isn't the VM's",
        "actors._vfio",
        "self.session.free(ioasid, sid=self.sid)",
        "self.session.free(ioasid)",
    ),
    Fault(
        "another-vms-id-unbound",
        "VFIO refuses every ID that isn't the VM's",
        "actors._vtd",
        (
            "        record = await self.session.find(ioasid, sid=asked.sid)\n"
            "        if ioasid not in table"
        ),
        "        record = await self.session.find(ioasid)\n        if ioasid not in table",
    ),
    Fault(
        "vfio-allocates-another-set",
        "VFIO: a set belongs to no session and outlives a crash",
        "actors._vfio",
        "        if self.sid < 0:\n            self.sid =",
        "        if restarted or self.sid < 0:\n            self.sid =",
    ),
    Fault(
        "vdcm-acknowledges-undrained",
        "VDCM drains before it lets go",
        "actors._vdcm",
        ("            self.events.defer(message)\n            self._drains"),
        "            self._drains",
    ),
    Fault(
        "vdcm-clears-under-dma",
        "VDCM drains before it lets go",
        "actors._vdcm",
        "        if not context.stopping or context.in_flight:\n",
        "        if not context.stopping:\n",
    ),
    Fault(
        "vtd-at-the-wrong-tier",
        "VT-d tears down at IOMMU, after every higher tier",
        "actors._vtd",
        "            priority=Priority.IOMMU,\n",
        "            priority=Priority.CPU,\n",
    ),
    Fault(
        "vtd-keeps-its-entries",
        "VT-d: on FREE the entries of every device are torn down",
        "actors._vtd",
        "        devices = await self.iommu.tear_down(ioasid)\n        if devices:\n",
        "        devices = self.iommu.devices_of(ioasid)\n        if devices:\n",
    ),
    Fault(
        "vdcm-puts-before-clearing",
        "VDCM: its context is cleared and then its reference dropped",
        "actors._vdcm",
        (
            "        del self.device.contexts[ioasid]\n"
            "        self.report(Cleared(ioasid))\n"
            "        await self.session.insist(Put(ioasid))\n"
        ),
        (
            "        await self.session.insist(Put(ioasid))\n"
            "        del self.device.contexts[ioasid]\n"
            "        self.report(Cleared(ioasid))\n"
        ),
    ),
    Fault(
        "vtd-puts-before-tearing-down",
        "VT-d tears down, flushes, then lets go",
        "actors._vtd",
        (
            "            if await self._tear_down(ioasid):\n"
            "                self._spare.add(ioasid)\n"
        ),
        (
            "            if self.iommu.devices_of(ioasid):\n"
            "                await self.session.insist(Put(ioasid))\n"
            "                await self._tear_down(ioasid)\n"
        ),
    ),
    Fault(
        "vdcm-given-up-without-reset",
        "An actor is given up only when its hardware is safe",
        "actors._vdcm",
        "        self.device.reset()\n",
        "",
    ),
    Fault(
        "vdcm-keeps-an-evicted-context",
        "VDCM: what an eviction left unprotected is aborted",
        "actors._vdcm",
        (
            "                self.device.abort(ioasid)\n"
            "                self.report(Cleared(ioasid))\n"
        ),
        "                pass\n",
    ),
    Fault(
        "vdcm-starts-while-stopping",
        "VDCM takes no more work for an ID that it drains",
        "actors._vdcm",
        "            raise ContextStopping(device.name, ioasid)\n",
        "            pass\n",
    ),
    Fault(
        "vtd-without-flush",
        "VT-d: entries are torn down and their caches flushed",
        "actors._iommu",
        "        self.flushes += 1\n",
        "",
    ),
    Fault(
        "vtd-forgets-the-second-device",
        "VT-d: on FREE the entries of every device are torn down",
        "actors._iommu",
        "        for device in devices:\n            await self.detach(device, ioasid)\n",
        "        for device in devices[:1]:\n            await self.detach(device, ioasid)\n",
    ),
    Fault(
        "vtd-unbinds-with-the-first-device",
        "VT-d: first bind and last unbind, devices share the mapping",
        "actors._vtd",
        (
            "        if len(self.iommu.devices_of(ioasid)) > 1:\n"
            "            await self._remove(asked.device, ioasid)\n"
        ),
        (
            "        if len(self.iommu.devices_of(ioasid)) > 2:\n"
            "            await self._remove(asked.device, ioasid)\n"
        ),
    ),
    Fault(
        "bystander-explained",
        "Explain: nobody is named who holds nothing up",
        "core._explain_handlers",
        "            waited = not record.free_pending or stage.ends_life or left\n",
        "            waited = True\n",
    ),
    Fault(
        "grant-not-explained",
        "Explain: what was granted is explained when its events are over for everybody else",
        "core._explain_handlers",
        "end for each in holding for end in self._behind(record, each, known)]\n",
        "]\n",
    ),
    Fault(
        "lagging-grant-not-explained",
        "Explain: a grant that ends with a Resync still to come has its holder named",
        "core._explain_handlers",
        "        due = [each for each in holding if each.resync_due]\n",
        "        due = []\n",
    ),
    Fault(
        "crash-explained-as-lag",
        "Explain: who crashed is told from who lags",
        "core._explain_handlers",
        "        place = Place.FOLDED if subscription.attached else Place.SUSPENDED\n",
        "        place = Place.FOLDED\n",
    ),
    Fault(
        "page-skips-one",
        "Lists: everything is on one page",
        "core._pages",
        "bisect_right(keys, after)\n",
        "bisect_right(keys, after) + 1\n",
    ),
    Fault(
        "holder-left-in-the-list",
        "Lists: a holder that is gone is not listed",
        "core._tables",
        "        del self.holder_names[bisect_left(self.holder_names, holder.name)]\n",
        "        pass\n",
    ),
    Fault(
        "vtd-puts-on-restart",
        "Supervision: references are kept over a crash",
        "actors._vtd",
        "            for _ in range(references - (ioasid in programmed)):\n",
        "            for _ in range(references):\n",
    ),
    Fault(
        "kvm-ignores-a-resync",
        "KVM: a Resync rebuilds its table",
        "actors._kvm",
        "            self._bindings.update(message)\n            return\n",
        "            return\n",
    ),
    Fault(
        "kvm-unmaps-anothers-entry",
        "KVM: a guest PASID may have been given to another ID meanwhile",
        "actors._kvm",
        " as ended) if ended == mapped:\n",
        " as ended) if ended != message:\n",
    ),
    Fault(
        "kvm-does-not-hold",
        "KVM holds: the grant comes with the BIND",
        "actors._kvm",
        "            hold=True,\n",
        "",
    ),
    Fault(
        "stop-counts-as-done",
        "Stopping: an actor leaves when its hardware is clean, and not before",
        "actors._actor",
        "                if self.stopping and self.is_clean():\n",
        "                if self.stopping:\n",
    ),
    Fault(
        "stop-without-waiting-leaves",
        "Stopping: who does not wait for programmed hardware is suspended",
        "actors._actor",
        "            raise Unclean\n",
        "            return\n",
    ),
    Fault(
        "stop-does-not-tear-down",
        "VT-d: a stop tears every entry down",
        "actors._vtd",
        "        for ioasid in self.iommu.programmed():\n            await self._let_go(ioasid)\n",
        "        pass\n",
    ),
    Fault(
        "stopped-device-takes-work",
        "Stopping: no more work is taken",
        "actors._actor",
        '        return self._state == "stopping"\n',
        "        return False\n",
    ),
    Fault(
        "give-up-evicts",
        "Giving up: what the hardware has stays in quarantine until somebody says otherwise",
        "actors._actor",
        "                await self.on_give_up(allocator)\n",
        (
            "                await self.on_give_up(allocator)\n"
            "                await self.evict_self(allocator)\n"
        ),
    ),
    Fault(
        "expulsion-not-delivered",
        "evict: a session that is live is told at once, with a subscription or without",
        "actors._allocator",
        "                        ending.begin(SessionEnded(effect.session))\n",
        "                        pass\n",
    ),
    Fault(
        "cancelled-task-counts-as-done",
        "Stopping: an actor whose own task was cancelled has crashed, and does not leave in order",
        "actors._actor",
        "            if not over:\n",
        "            if False:\n",
    ),
    Fault(
        "stray-cancellation-ends-the-actor",
        "Supervision: what a request waits for and is cancelled is the failure of that request",
        "actors._reply",
        "    return native or current_effective_deadline() == -inf\n",
        "    return True\n",
    ),
    Fault(
        "clean-stop-sleeps",
        "Stopping: an actor leaves as soon as its hardware is clean",
        "actors._actor",
        (
            "            if self.stopping and self.is_clean():\n"
            "                return\n"
            "            await self._mailbox.ready()\n"
        ),
        "            await self._mailbox.ready()\n",
    ),
    Fault(
        "bug-takes-the-actor-down",
        "Supervision: a bug in a request is the failure of that request",
        "actors._actor",
        (
            "        except Exception as error:  # noqa: BLE001 - it is the request's failure\n"
            "            answer = self._failed(error)\n"
        ),
        ("        except Exception:\n            raise\n"),
    ),
    Fault(
        "crash-without-cause",
        "Supervision: whoever asked is given the cause of the crash",
        "actors._owed",
        "                error.__cause__ = cause\n",
        "",
    ),
    Fault(
        "waits-do-not-grow",
        "Supervision: waits between restarts grow",
        "actors._supervision",
        "self._grown = max(self._wait, min(wait * FACTOR, LONGEST))\n",
        "self._grown = wait\n",
    ),
    Fault(
        "forsaken-allocation-kept",
        "Cancellation: what only the answer names is undone",
        "actors._vfio",
        "                await self.session.insist(Free(answer, self.sid))\n",
        "                pass\n",
    ),
    Fault(
        "forsaken-context-kept",
        "Cancellation: a context that nobody knows of is cleared",
        "actors._vdcm",
        "                await self._drain(answer)\n",
        "                pass\n",
    ),
    Fault(
        "forsaken-bind-lost",
        "Cancellation: who asks again for a bind that stands finds it",
        "actors._vfio",
        "        known = answer is not None or not waits.cancelled()\n",
        "        known = True\n",
    ),
    Fault(
        "forsaken-process-bind-kept",
        "Cancellation: a bind of a process that nobody knows of is undone",
        "actors._vtd",
        "            await self._unbind_process(message.device, message.process, failed=True)\n",
        "            pass\n",
    ),
    Fault(
        "kernel-replaces-silently",
        "IOMMU: what is attached is refused before the kernel would replace it",
        "actors._iommu",
        "            raise AlreadyProgrammed(device, ioasid)\n",
        "            pass\n",
    ),
    Fault(
        "pasid-zero-attached",
        "IOMMU: PASID 0 is the device itself and never attached",
        "actors._iommu",
        "        if not ioasid:\n",
        "        if False:\n",
    ),
    Fault(
        "refused-attach-keeps-the-reference",
        "IOMMU: what the kernel refuses to attach has changed nothing",
        "actors._vtd",
        "        except IoasidError:\n            await self.session.insist(Put(ioasid))\n",
        "        except IoasidError:\n",
    ),
    Fault(
        "detached-after-acknowledging",
        "IOMMU: an ID is detached before its FREE is acknowledged",
        "actors._vtd",
        (
            "            if await self._tear_down(ioasid):\n"
            "                self._spare.add(ioasid)\n"
        ),
        (
            "            if self.iommu.devices_of(ioasid):\n"
            "                self._spare.add(ioasid)\n"
            "                self.tasks.start_soon(self._tear_down, ioasid)\n"
        ),
    ),
    Fault(
        "width-unchecked",
        "Devices: an ID that does not fit is refused before anything is programmed",
        "actors._vtd",
        "        if ioasid is not None and ioasid >> self.iommu.pasid_bits[device]:\n",
        "        if False:\n",
    ),
    Fault(
        "process-unchecked",
        "Devices: submitting and stopping name the process",
        "actors._vdcm",
        "        if context is None or context.process != process:\n",
        "        if context is None:\n",
    ),
    Fault(
        "process-keeps-no-pasid",
        "Devices: a process keeps its PASID until it exits",
        "actors._vtd",
        "        if not known.stood:\n",
        "        if not known.stood or not self.iommu.devices_of(known.ioasid):\n",
    ),
    Fault(
        "process-binds-not-counted",
        "Devices: binds of one device count",
        "actors._vtd",
        "        if entry.binds > 1:\n",
        "        if entry.binds > 2:\n",
    ),
    Fault(
        "unbind-leaves-the-context",
        "Devices: an unbind undoes the bind wholly on that device",
        "actors._host",
        "                        await _insist(vdcm, StopDma(ioasid, process=process))\n",
        "                        pass\n",
    ),
    Fault(
        "removed-undrained",
        "Devices: a device is drained before it goes",
        "actors._host",
        "            vdcm.stop()\n            await vdcm.ended.wait()\n",
        "",
    ),
    Fault(
        "removed-with-its-guests-bound",
        "Devices: a device is unbound from everybody before it goes",
        "actors._vtd",
        "            if self.iommu.tables[device]:\n                continue\n",
        "",
    ),
    Fault(
        "session-forgets-the-life",
        "Identity: what alloc returns remembers its generation, and requests name it",
        "actors._looker",
        "ioasid.generation if generation is None else generation\n",
        "generation\n",
    ),
    Fault(
        "old-number-joins-a-bind",
        "Identity: an old number is refused by a guest's door, too",
        "actors._vfio",
        "(await self.session.find(asked.ioasid, sid=self.sid)).generation",
        "(await self.session.find(int(asked.ioasid), sid=self.sid)).generation",
    ),
    Fault(
        "old-number-forgets-a-bind",
        "Identity: a refused request by an old number changes nothing",
        "actors._vfio",
        "binding.waits is None and _means(ioasid, binding.life):",
        "binding.waits is None:",
    ),
    Fault(
        "old-number-at-a-device",
        "Identity: an old number is refused by a device's driver",
        "actors._vdcm",
        "            raise StaleIoasid(ioasid, ioasid.generation, context.generation)\n",
        "            pass\n",
    ),
    Fault(
        "foreign-set-at-a-device",
        "Identity: a driver refuses a set that does not have the ID, or is gone",
        "actors._vdcm",
        "        if sid is not None and sid != context.sid:\n",
        "        if False:\n",
    ),
    Fault(
        "exited-process-comes-back",
        "Devices: a process number that came back is another process",
        "actors._vtd",
        "                    del self._processes[process]\n",
        "",
    ),
    Fault(
        "failed-bind-ends-the-process",
        "Devices: a process keeps its PASID until it exits",
        "actors._vtd",
        "self.iommu.binds_of(ioasid) + 1)",
        "1)",
    ),
    Fault(
        "vtd-takes-any-binding-back",
        "Supervision: what a driver takes back is what it had programmed",
        "actors._vtd",
        "                same = record.spid == entry.gpasid\n",
        "                same = record.spid is not None\n",
    ),
    Fault(
        "vdcm-keeps-anothers-context",
        "VDCM: a Resync that shows another spid ends the context",
        "actors._vdcm",
        "            if (await self.session.find(ioasid)).spid != context.gpasid:\n",
        "            if (await self.session.find(ioasid)).spid is None:\n",
    ),
    Fault(
        "deadline-of-who-left",
        "Acknowledgement: the shortest deadline is that of those who are there",
        "actors._deadlines",
        "                del self._users[within]\n                self._set_pace()\n",
        "                pass\n",
    ),
    Fault(
        "tap-takes-the-allocator-down",
        "Taps: one that raises is logged and removed, and the rest goes on",
        "actors._taps",
        "                self._taps.remove(tap)\n",
        "                raise\n",
    ),
    Fault(
        "kernel-width-unchecked",
        "Linux: a device without PASIDs takes any attach and does nothing, so it is refused",
        "linux._device",
        "            if not self.pasid_bits:\n",
        "            if False:\n",
    ),
    Fault(
        "descriptor-left-by-a-failed-open",
        "Linux: nothing is left open, whichever call of an open fails",
        "linux._device",
        "        except BaseException:\n            self.close()\n",
        "        except BaseException:\n",
    ),
    Fault(
        "device-closed-with-its-pasids",
        "Linux: a device is closed after all its PASIDs are gone",
        "linux._tables",
        "                vfio.detach(ioasid)\n            except",
        "                pass\n            except",
    ),
    Fault(
        "attached-under-another-space",
        "Linux: the devices of an ID share its address space",
        "linux._tables",
        "        known = self._spaces.get(ioasid)\n",
        "        known = None\n",
    ),
    Fault(
        "memory-freed-under-dma",
        "Linux: memory stays allocated as long as it is mapped",
        "linux._address_space",
        "            self._space.mapped[iova] = length, held\n",
        "            self._space.mapped[iova] = length, None\n",
    ),
    Fault(
        "ioctl-abandoned",
        "Linux: what was begun is finished, whoever is cancelled",
        "linux._run",
        "limiter=alone)\n",
        "limiter=alone, abandon_on_cancel=True)\n",
    ),
    Fault(
        "wrong-thread-let-in",
        "Threads: what belongs to one event loop raises at once in another thread",
        "actors._thread",
        "        if get_ident() != self.thread:\n",
        "        if False:\n",
    ),
    Fault(
        "wrong-thread-begins-a-device",
        "Threads: nothing is begun for a caller that gets an error",
        "actors._host",
        "        self._door.check()\n        check_name(name)\n        if hardware",
        "        check_name(name)\n        if hardware",
    ),
    Fault(
        "device-bound-before-it-is-there",
        "Devices: nothing is programmed for a device that may have to go again",
        "actors._host",
        "                iommu.closed.add(name)\n",
        "                pass\n",
    ),
    Fault(
        "move-arrives-too-wide",
        "Migration: a VM arrives at numbers that its devices have",
        "actors._vfio",
        "max=min(last, self._last)",
        "max=self._last",
    ),
    Fault(
        "wrong-thread-asks",
        "Threads: nothing is decided for a caller that gets an error",
        "actors._local_port",
        (
            "        # As `Door.check`, which an ask need not pay a call for.\n"
            "        if get_ident() != self._thread:\n"
        ),
        "        if False:\n",
    ),
    Fault(
        "wrong-thread-acknowledges",
        "Threads: nothing is acknowledged for a caller that gets an error",
        "actors._local_port",
        "            self.check()\n        if self._has_left:\n",
        "            pass\n        if self._has_left:\n",
    ),
    Fault(
        "wrong-thread-takes-a-message",
        "Threads: a message stays for the consumer that it is for",
        "actors._subscription",
        "            self._check()\n        if queue.error",
        "            pass\n        if queue.error",
    ),
    Fault(
        "wrong-thread-takes-from-the-hand",
        "Threads: a message in hand stays there when its acknowledgement is refused",
        "actors._subscription",
        "        is_in_hand = self._in_hand is message\n",
        (
            "        is_in_hand = self._in_hand is message\n"
            "        if is_in_hand:\n"
            "            self._in_hand = None\n"
        ),
    ),
    Fault(
        "one-lane-for-everybody",
        "Fairness: whoever floods a driver delays others by a few requests",
        "actors._actor",
        "        return Client(self, self._mailbox.lane())\n",
        "        return Client(self, self._lane)\n",
    ),
    Fault(
        "reply-before-commit",
        "Durability: a batch's answers leave when it is on disk, never before",
        "actors._commit",
        "                await self._commit(applied)\n",
        (
            "                for batch in group:\n"
            "                    self._release(batch)\n"
            "                    batch.answers.clear()\n"
            "                    batch.effects.clear()\n"
            "                await self._commit(applied)\n"
        ),
    ),
    Fault(
        "failed-commit-stands",
        "Durability: a request that can't be kept has changed nothing",
        "actors._allocator",
        "        self._core = self._deadlines.core = core\n",
        "",
    ),
    Fault(
        "undo-outlives-its-cause",
        "Durability: what was never committed is as if it had never been asked",
        "actors._allocator",
        "            batch.fate.is_undone = True\n",
        "",
    ),
    Fault(
        "time-going-back",
        "Durability: time goes on from the last one logged",
        "actors._allocator",
        "    return lambda: max(begun, now() + moved)\n",
        "    return lambda: now() + moved - 1.0\n",
    ),
    Fault(
        "checkpoint-before-its-rows",
        "Durability: a checkpoint stands for the rows up to its index, and for no other",
        "journal._store",
        "            dropped[0] = execute(statement, (checkpoint.index, SLICE)).rowcount\n",
        "            dropped[0] = execute(statement, (checkpoint.index + 1, SLICE)).rowcount\n",
    ),
    Fault(
        "failed-commit-left-in-the-log",
        "Durability: nothing of a commit that failed comes back",
        "journal._store",
        "                self._log.cut_off()\n",
        "                pass\n",
    ),
    Fault(
        "end-of-log-not-followed",
        "Durability: nothing of a commit that failed comes back, and no other goes with it",
        "journal._store",
        "            self._log.follow()\n",
        "            pass\n",
    ),
    Fault(
        "write-never-done-taken-for-rot",
        "Durability: a torn end is cut off with a warning",
        "journal._wal",
        " and not _is_older(head[2:4], salt)]\n",
        "]\n",
    ),
    Fault(
        "folder-not-looked-for",
        "Durability: what nobody would find again is not kept",
        "journal._store",
        "            if self._home == (self._home_now(), self._log_now()):\n",
        "            if (self._home_now(), self._log_now()):\n",
    ),
    Fault(
        "file-with-two-names",
        "Durability: a journal is refused by a name that its log does not go by",
        "journal._store",
        "stat.S_ISREG(home.st_mode) and home.st_nlink > 1:\n",
        "stat.S_ISREG(home.st_mode) and home.st_nlink > 2:\n",
    ),
    Fault(
        "empty-file-taken-for-new",
        "Durability: what is gone of a journal is refused, and nothing begins anew",
        "journal._store",
        "        if log is not None and log.st_size and (home is None or not home.st_size):\n",
        "        if log is not None and log.st_size and home is None:\n",
    ),
    Fault(
        "lost-log-not-missed",
        "Durability: what is gone of a journal is refused, and nothing begins anew",
        "journal._store",
        "        elif not self._has_log and file.execute(",
        "        elif False and file.execute(",
    ),
    Fault(
        "look-up-kept",
        "Durability: only what changed the state is kept",
        "core._allocator",
        "        if type(request) is FindBySpid and request.get:\n",
        "        if type(request) is FindBySpid:\n",
    ),
    Fault(
        "torn-row-accepted",
        "Durability: what is not as it was written is refused with its place",
        "journal._replay",
        "        if row.seal != seal_of(self.seal, row.data):\n",
        "        if not row.data:\n",
    ),
    Fault(
        "damaged-log-cut-off",
        "Durability: a torn end is cut off, any other damage is refused",
        "journal._wal",
        "    return WalEnd(whole, left, damaged=len(commits) > 1)\n",
        "    return WalEnd(whole, left, damaged=False)\n",
    ),
    Fault(
        "boot-id-ignored",
        "Durability: the boot ID is compared",
        "journal._journal",
        "        if there != here:\n",
        "        if not there:\n",
    ),
    *SERVICE_FAULTS,
)
BY_NAME: Final = {each.name: each for each in FAULTS}
