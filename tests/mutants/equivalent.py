"""Mutants of the core that no test can tell from the original, and why, by module."""

from typing import Final

SLOWER: Final = "the same happens to each ID by itself, only slower"
OTHER: Final = "any other version says that the routes are stale"
CLEARED: Final = "the routes of every set in scope are cleared anyway"
NO_ROUTES: Final = "a set that knows no routes yet has none that could be stale"
ASKED: Final = "what is asked needlessly answers the same"
GONE: Final = "nobody looks at it any more"
SEARCHED: Final = "the lowest free ID is searched for instead, only slower"
SAME: Final = "where the two are equal, one is set to the other"

EQUIVALENT: Final[dict[str, dict[str, str]]] = {
    "_check": {
        "_utf8_length: return MAX_DATA + 1 | 1 → 2": "any length above the most there may be",
    },
    "_ioasid_handlers": {
        "IoasidHandlers.alloc: if request.max is not None or type(low) is not int or not "
        "0 <= low <= high: | 0 <= low <= high → (0 < low <= high)": ASKED,
        "IoasidHandlers.alloc: if request.max is not None or type(low) is not int or not "
        "0 <= low <= high: | 0 <= low <= high → (0 <= low < high)": ASKED,
        "IoasidHandlers.alloc: if request.max is not None or type(low) is not int or not "
        "0 <= low <= high: | 0 → 1": ASKED,
    },
    "_ioasid_sets": {
        "IoasidSet: system: bool = False | False → True": (
            "whoever makes a set that anybody finds says so"
        ),
        "IoasidSet: routes_version: int = -1 | -1 → (1)": NO_ROUTES,
        "IoasidSet: routes_version: int = -1 | 1 → 2": NO_ROUTES,
    },
    "_lifecycle": {
        "LifeCycle.free_all: self.release_plain(owner, chosen) | "
        "self.release_plain(owner, chosen) → pass": SLOWER,
        "LifeCycle.wait: if ioasid in owner.records and owner.records[ioasid].free_pending | "
        "ioasid in owner.records and owner.records[ioasid].free_pending → "
        "(ioasid in owner.records or owner.records[ioasid].free_pending)": (
            "whoever asks names IDs in quarantine only"
        ),
        "LifeCycle._reclaim_if_done: record.chain = () | record.chain = () → pass": GONE,
        "LifeCycle.release_plain: recorded[word] = recorded.get(word, 0) | 1 << (ioasid & MASK) | "
        "0 → 1": SLOWER,
        "LifeCycle.release_plain: for first, members in chosen: | chosen → ()": SLOWER,
        "LifeCycle.release_plain: plain = members & ~recorded.get(first >> SHIFT, 0) | 0 → 1": (
            SLOWER
        ),
    },
    "_notifier": {
        "Notifier.route: owner.routes_version = self._tables.routes_version | "
        "owner.routes_version = self._tables.routes_version → pass": (
            "every route is found anew, only slower"
        ),
        "Notifier.join: tables.routes_version += 1 | 1 → 2": OTHER,
        "Notifier.leave: if tables.system_subscriptions.pop(number, None) is not None: | "
        "tables.system_subscriptions.pop(number, None) is not None → "
        "(tables.system_subscriptions.pop(number, None) is None)": CLEARED,
        "Notifier.leave: tables.routes_version += 1 | tables.routes_version += 1 → pass": CLEARED,
        "Notifier.leave: tables.routes_version += 1 | 1 → 2": OTHER,
        "Notifier.advance: if len(chain) > 1 or chain[0].event.publisher is not None: | "
        "len(chain) > 1 → (len(chain) >= 1)": "an event by itself cancels nothing out",
        "Notifier.advance: record.chain = () | record.chain = () → pass": (
            "an empty list is as good, only larger"
        ),
    },
    "_restore": {
        "_Restorer._stage: owner = IoasidSet(event.sid, event.token, TokenType.NULL, quota=1) | "
        "1 → 2": GONE,
    },
    "_routes": {
        "module: NO_TIER: Final = LAST_TIER + 1 | 1 → 2": "any number above that of the last tier",
        "module: NOBODY: Final = Route(_EMPTY, (NO_TIER,) * (NO_TIER + 1), False, _EMPTY, _EMPTY) "
        "| 1 → 2": "nobody looks beyond the tiers",
        "module: NOBODY: Final = Route(_EMPTY, (NO_TIER,) * (NO_TIER + 1), False, _EMPTY, _EMPTY) "
        "| False → True": "there is nobody to be granted anything",
    },
    "_snapshot": {
        "_Part: class _Part(Struct, frozen=True, forbid_unknown_fields=True): | True → False": (
            "every part says so itself"
        ),
    },
    "_space": {
        "words: if last < end: | last < end → (last <= end)": SAME,
        "IdSpace: _full_blocks: int = 0 | 0 → 1": "a search looks at the blocks above its own only",
        "IdSpace: _run_first: int = 0 | 0 → 1": "no ID is in the run yet, wherever it begins",
        "IdSpace.take_lowest: if not self._run_first <= low <= ioasid: | self._run_first <= low <= "
        "ioasid → (self._run_first < low <= ioasid)": SEARCHED,
        "IdSpace.take_lowest: if not self._run_first <= low <= ioasid: | self._run_first <= low <= "
        "ioasid → (self._run_first <= low < ioasid)": (
            "a run that begins at its own end is as true, only shorter"
        ),
        "IdSpace.take_lowest: self._run_end = ioasid + 1 | self._run_end = ioasid + 1 → pass": (
            SEARCHED
        ),
        "IdSpace.take_lowest: self._run_end = ioasid + 1 | ioasid + 1 → (ioasid - 1)": SEARCHED,
        "IdSpace.release: if lowest < self._run_end: | lowest < self._run_end → "
        "(lowest <= self._run_end)": SAME,
    },
    "_table": {
        "SubscriberTable._end_binding: del self._spids[binding.spid] | "
        "del self._spids[binding.spid] → pass": "a spid that no set has is found in none, too",
    },
    "_subscriptions": {
        "Subscription: attached: bool = True | True → False": "who subscribes is attached next",
    },
    "_tables": {
        "Tables: routes_version: int = 0 | 0 → 1": NO_ROUTES,
    },
    "_terms": {
        "Message: class Message(Struct, frozen=True, gc=False, tag=True, "
        "forbid_unknown_fields=True): | True → False": "every message says so itself",
    },
}
