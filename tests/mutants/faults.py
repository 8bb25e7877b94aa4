"""Small deliberate bugs, each one decision of the core or the actors taken wrongly."""

from typing import Final

from tests.mutants.planting import Fault

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
        "            if notifier.under_way(record) or any(\n",
        "            if any(\n",
    ),
    Fault(
        "quarantined-id-allocated",
        "Life cycle: an ID in quarantine can't be allocated",
        "core._lifecycle",
        "        record.free_pending = True\n",
        (
            "        record.free_pending = True\n"
            "        tables.space.release(ioasid, 1 << (ioasid & MASK), dict(owner.members))\n"
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
            "        tables.free_pending += 1\n"
        ),
        (
            "        tables.free_pending += not record.free_pending\n"
            "        record.free_pending = True\n"
        ),
    ),
    Fault(
        "reclaim-not-told",
        "Life cycle: RECLAIM is sent when the ID is back in the pool",
        "core._lifecycle",
        "            self._notifier.tell_all(owner, RECLAIM, ioasid, spid, data)\n",
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
        "        tables.available += owner.quota\n",
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
        "        tables.space.release(ioasid, 1 << (ioasid & MASK), owner.members)\n",
        "        tables.space.release(ioasid, 1 << (ioasid & MASK ^ 1), owner.members)\n",
    ),
    Fault(
        "eviction-keeps-references",
        "evict: the holder's references are dropped",
        "core._lifecycle",
        "            record.holders = without(record.holders, holder)\n            tables.uns",
        "            tables.uns",
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
        "tiers[matching[number].tier]",
        "tiers[LAST_TIER - matching[number].tier]",
    ),
    Fault(
        "next-event-starts-early",
        "Order: an event starts when the one before reached its last tier",
        "core._notifier",
        (
            "            if index and stage.reach < 0 and self._under_way(chain[:index]):\n"
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
        "                self._grant_all(tier, record, seq)\n",
        "                pass\n",
    ),
    Fault(
        "grant-forgotten-for-late-joiner",
        "Holding: who is offered a BIND is granted its binding",
        "core._notifier",
        "                self._grant_all(stage.waiting, stage.record, stage.binding)\n",
        "                pass\n",
    ),
    Fault(
        "grant-forgotten-in-resync",
        "A Resync grants the binding of every bound ID that it lists",
        "core._notifier",
        (
            "            shown.add(binding)\n"
            "            self._grant(subscription, record, binding)\n"
        ),
        "            shown.add(binding)\n",
    ),
    Fault(
        "grant-dropped-with-bind",
        "Holding: a grant lasts until the end of its binding is acknowledged",
        "core._notifier",
        (" and stage.event.kind is not BIND:\n            self._drop_grant("),
        (":\n            self._drop_grant("),
    ),
    Fault(
        "grant-never-dropped",
        "Holding: acknowledging UNBIND or FREE drops the grant",
        "core._notifier",
        "            self._drop_grant(subscription, stage.binding)\n",
        "            pass\n",
    ),
    Fault(
        "grant-counted-per-holder",
        "Holding: a grant belongs to one binding, not to the ID",
        "core._notifier",
        "            self._drop_grant(subscription, stage.binding)\n",
        (
            "            for binding, record in tuple(subscription.grants.items()):\n"
            "                if record is stage.record:\n"
            "                    self._drop_grant(subscription, binding)\n"
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
        "core._notifier",
        "Lapse(subscription.folded, self",
        "Lapse({}, self",
    ),
    Fault(
        "resync-shows-current-state",
        "Invariant 6: a Resync reveals nothing that is on its way",
        "core._notifier",
        "            if stage.reach < tier and stage.event.publisher is None:\n",
        "            if stage.reach < -1:\n",
    ),
    Fault(
        "resync-keeps-stale-grants",
        "A Resync's acknowledgement drops grants that it no longer shows",
        "core._notifier",
        (
            "            for binding in entry.stale:\n"
            "                self._drop_grant(subscription, binding)\n"
        ),
        "",
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
        "        self._acknowledge_stages(subscription, self._pending_stages(subscription))\n",
        "",
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
        "core._sets",
        "            owner.subscriptions.update(tables.token_subscriptions.get(token, {}))\n",
        "",
    ),
    Fault(
        "quota-off-by-one",
        "Invariant 1: allocated <= quota",
        "core._ioasids",
        "        if owner.allocated >= owner.quota:\n",
        "        if owner.allocated > owner.quota:\n",
    ),
    Fault(
        "quota-checked-afterwards",
        "Invariant 7: a refused request leaves the state as it was",
        "core._ioasids",
        (
            "        if owner.allocated >= owner.quota:\n"
            "            raise QuotaExceeded(owner.sid, owner.quota, owner.allocated, 1)\n"
            "        ioasid = tables.space.take_lowest(low, high, sid, owner.members)\n"
        ),
        (
            "        ioasid = tables.space.take_lowest(low, high, sid, owner.members)\n"
            "        if owner.allocated >= owner.quota:\n"
            "            raise QuotaExceeded(owner.sid, owner.quota, owner.allocated, 1)\n"
        ),
    ),
    Fault(
        "capacity-made-by-adjusting",
        "Invariant 1: the difference moves from or to available",
        "core._sets",
        "        tables.available -= quota - owner.quota\n",
        "",
    ),
    Fault(
        "put-drops-another-holders",
        "References are counted per holder",
        "core._ioasids",
        "        record.holders = without(record.holders, holder)\n        self._life",
        "        record.holders = without(record.holders, record.holders[0])\n        self._life",
    ),
    Fault(
        "put-without-a-reference",
        "put: EINVAL without a reference",
        "core._ioasids",
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
        "core._ioasids",
        (
            "        if spid in owner.spids:\n"
            "            raise SpidInUse(owner.sid, spid, owner.spids[spid])\n"
        ),
        "",
    ),
    Fault(
        "too-many-events-taken",
        "Order: an ID with 16 events under way refuses another with EAGAIN",
        "core._ioasids",
        "            if under_way >= MAX_UNDER_WAY:\n",
        "            if under_way < 0:\n",
    ),
    Fault(
        "foreign-set-let-in",
        "Permission: EACCES when the ID belongs to another set",
        "core._handlers",
        ("            raise NotOfThisSet(ioasid, sid)\n        return"),
        ("            pass\n        return"),
    ),
    Fault(
        "crash-taken-for-leaving",
        "Invariant 9: who crashes with references is suspended",
        "core._holders",
        "        if not holder.references and not any(each.hold for each in subscriptions):\n",
        "        if subscriptions is not None:\n",
    ),
    Fault(
        "unbind-sent-after-free",
        "detach_spid: silent once FREE was sent",
        "core._ioasids",
        ("        if not record.free_pending:\n            self._notifier.stage(record, UNBIND,"),
        ("        if record.spid is not None:\n            self._notifier.stage(record, UNBIND,"),
    ),
    Fault(
        "set-being-freed-allocates",
        "alloc: EBUSY when the set is being freed",
        "core._handlers",
        "            raise SetFreePending(owner.sid)\n        return owner\n",
        "            pass\n        return owner\n",
    ),
    Fault(
        "reference-found-in-quarantine",
        "find_by_spid: EBUSY with a reference while FREE_PENDING",
        "core._ioasids",
        "                raise IoasidFreePending(ioasid)\n            self._take_reference",
        "                pass\n            self._take_reference",
    ),
    Fault(
        "comeback-without-resync",
        "Holders: who comes back starts with a Resync",
        "core._subscriptions",
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
        (
            "        for binding in tuple(subscription.grants):\n"
            "            self._drop_grant(subscription, binding)\n"
        ),
        "",
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
        "lowest-free-remembered",
        "alloc: the lowest free ID in the range",
        "core._space",
        "            self._run_end = lowest\n",
        "            pass\n",
    ),
    Fault(
        "reply-lost-at-shutdown",
        "Invariant 8: one reply, also when the allocator is shut down",
        "actors._allocator",
        "        left = [reply for _, _, reply in batch + self.mailbox.close()]\n",
        ("        self.mailbox.close()\n        left = [reply for _, _, reply in batch]\n"),
    ),
    Fault(
        "waiter-lost-at-shutdown",
        "Invariant 8: one reply, also to those who wait for a reclaim",
        "actors._allocator",
        "        for reply in [*left, *self._waiting.values()]:\n",
        "        for reply in left:\n",
    ),
    Fault(
        "cancelled-request-decided",
        "A call cancelled before it was decided is not decided",
        "actors._allocator",
        (
            "            if reply is not None and reply.cancelled():\n"
            "                continue\n"
            "            answer: Any\n"
        ),
        "            answer: Any\n",
    ),
    Fault(
        "abandoned-wait-kept",
        "A caller that gives up waiting is forgotten",
        "actors._allocator",
        "            self.core.abandon(ticket)\n",
        "            pass\n",
    ),
    Fault(
        "session-undo-forgotten",
        "A session that its cancelled opener never got is closed",
        "actors._session",
        "            session._end(SuspendSession() if opened.resumed else CloseSession())\n",
        "            pass\n",
    ),
    Fault(
        "crashed-session-closed",
        "Holders: a crash suspends, and closes nothing",
        "actors._session",
        "            session._end(SuspendSession())\n            raise\n",
        "            session._end(CloseSession())\n            raise\n",
    ),
    Fault(
        "withdrawn-message-delivered",
        "Lag: what a Resync replaces is not delivered any more",
        "actors._subscription",
        (
            "        while self._queue and self._queue[-1].seq != keep:\n"
            "            self._queue.pop()\n"
        ),
        "        pass\n",
    ),
    Fault(
        "acknowledged-when-taken",
        "Acknowledgement: by coming back, not by taking",
        "actors._subscription",
        (
            "        self._in_hand = message = self._queue.popleft() if self._queue else None\n"
            "        if message is None:\n"
            "            self._entered()\n"
        ),
        (
            "        message = self._queue.popleft() if self._queue else None\n"
            "        if message is None:\n"
            "            self._entered()\n"
            "        else:\n"
            "            self.acknowledge(message)\n"
        ),
    ),
    Fault(
        "acknowledgement-not-sent",
        "Acknowledgement: by coming back for the next event",
        "actors._subscription",
        "            self._tell(Acknowledge(self._number, in_hand.seq))\n",
        "            pass\n",
    ),
    Fault(
        "subscription-undo-forgotten",
        "A subscription that its cancelled subscriber never got is ended",
        "actors._session",
        ("            self._tell(Detach(number) if answer.resumed else Unsubscribe(number))\n\n"),
        "            pass\n\n",
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
        "            share = self._share\n",
        "            pass\n",
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
        "            mailbox._wake()\n        self._items.append(item)\n",
        "            mailbox._wake()\n        self._items.appendleft(item)\n",
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
        "                decided.append((reply, answer))\n",
        "                reply.set_result(answer)\n",
    ),
    Fault(
        "overdue-not-logged",
        "A subscriber that hangs shows up on the log, by name",
        "actors._allocator",
        "            if key not in self._reported:\n",
        "            if key in self._reported:\n",
    ),
    Fault(
        "crash-answers-nobody",
        "Invariant 8: one reply, also when the actor crashes on it",
        "actors._actor",
        "                reply.set_result(ActorCrashed(self.holder))\n",
        "                pass\n",
    ),
    Fault(
        "stop-answers-nobody",
        "Invariant 8: one reply, also when the actor stops before it",
        "actors._actor",
        "        for reply in [*replies, *self._owed, self._in_hand]:\n",
        "        for reply in [*self._owed, self._in_hand]:\n",
    ),
    Fault(
        "restarts-for-ever",
        "Supervision: after a bounded number of restarts it gives up",
        "actors._actor",
        "                    self._restarts += 1\n",
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
        "            except ActorCrashed:\n                continue\n",
        "            except ActorCrashed:\n                return\n",
    ),
    Fault(
        "refused-process-bind-kept",
        "sva_bind: what the device refuses is undone",
        "actors._host",
        "            self.vtd.tell(UnbindProcess(device, process))\n            raise\n",
        "            raise\n",
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
        "        if not restarted:\n            self.sid =",
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
        (
            "        self.report(TornDown(ioasid, self.iommu.tear_down(ioasid)))\n"
            "        await self.session.put"
        ),
        "        await self.session.put",
    ),
    Fault(
        "vdcm-puts-before-clearing",
        "VDCM: its context is cleared and then its reference dropped",
        "actors._vdcm",
        (
            "        del self.device.contexts[ioasid]\n"
            "        self.report(Cleared(ioasid))\n"
            "        await self.session.put(ioasid)\n"
        ),
        (
            "        await self.session.put(ioasid)\n"
            "        del self.device.contexts[ioasid]\n"
            "        self.report(Cleared(ioasid))\n"
        ),
    ),
    Fault(
        "vtd-puts-before-tearing-down",
        "VT-d tears down, flushes, then lets go",
        "actors._vtd",
        (
            "        self.report(TornDown(ioasid, self.iommu.tear_down(ioasid)))\n"
            "        await self.session.put(ioasid)\n"
        ),
        (
            "        await self.session.put(ioasid)\n"
            "        self.report(TornDown(ioasid, self.iommu.tear_down(ioasid)))\n"
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
        "actors._vtd",
        "        self.flushes += len(devices)\n",
        "",
    ),
    Fault(
        "vtd-forgets-the-second-device",
        "VT-d: on FREE the entries of every device are torn down",
        "actors._vtd",
        "        for device in devices:\n            del self.tables[device][ioasid]\n",
        "        for device in devices[:1]:\n            del self.tables[device][ioasid]\n",
    ),
    Fault(
        "vtd-unbinds-with-the-first-device",
        "VT-d: first bind and last unbind, devices share the mapping",
        "actors._vtd",
        (
            "        if len(self.iommu.devices_of(ioasid)) > 1:\n"
            "            self._remove(asked.device, ioasid)\n"
        ),
        (
            "        if len(self.iommu.devices_of(ioasid)) > 2:\n"
            "            self._remove(asked.device, ioasid)\n"
        ),
    ),
    Fault(
        "vtd-puts-on-restart",
        "Supervision: references are kept over a crash",
        "actors._vtd",
        "            for _ in range(references - (ioasid in programmed)):\n",
        "            for _ in range(references):\n",
    ),
    Fault(
        "kvm-keeps-an-entry",
        "KVM: an unmapped guest PASID faults",
        "actors._kvm",
        "            del self.table[message.spid]\n",
        "            pass\n",
    ),
    Fault(
        "kvm-maps-quarantined-ids",
        "KVM: after a Resync nothing in quarantine is mapped",
        "actors._kvm",
        "                if each.spid is not None and each.state is IoasidState.ACTIVE\n",
        "                if each.spid is not None\n",
    ),
    Fault(
        "kvm-removes-anothers-entry",
        "KVM: a guest PASID may have been given to another ID meanwhile",
        "actors._kvm",
        "        elif self.table.get(message.spid) == message.ioasid:\n",
        "        elif message.spid in self.table:\n",
    ),
    Fault(
        "kvm-does-not-hold",
        "KVM holds: the grant comes with the BIND",
        "actors._kvm",
        "            hold=True,\n",
        "",
    ),
)
BY_NAME: Final = {each.name: each for each in FAULTS}
