"""The requests that list sets and holders, a page at a time."""

from typing import Final

from ioasid.core import _check
from ioasid.core._answers import Answer, HolderPage, HolderRecord, SetPage, SubscriptionRecord
from ioasid.core._handlers import Handlers
from ioasid.core._holders import Holder
from ioasid.core._lags import lag_of
from ioasid.core._pages import page
from ioasid.core._requests import ListHolders, ListSets
from ioasid.core._set_handlers import set_record
from ioasid.core._subscriptions import Subscription

__all__: list[str] = []

MAX_SUBSCRIPTIONS: Final = 1000
"""How many subscriptions a page of holders shows, so that its cost has a bound."""


class InventoryHandlers(Handlers):
    """The handlers of lists in pages."""

    def list_sets(self, _: Holder, request: ListSets) -> Answer:
        """Look up some of the sets."""
        tables = self._tables
        after = _check.optional_number(request.after, "after")
        sids, following = page(tables.set_numbers, after, _check.page_size(request.limit))
        return SetPage(tuple(set_record(tables.sets[sid]) for sid in sids), following)

    def list_holders(self, _: Holder, request: ListHolders) -> Answer:
        """Look up some of the holders."""
        tables = self._tables
        after = None if request.after is None else _check.name(request.after, "after")
        names, following = page(tables.holder_names, after, _check.page_size(request.limit))
        found: list[HolderRecord] = []
        left = MAX_SUBSCRIPTIONS
        for name in names:
            holder = tables.holders[name]
            if found and len(holder.subscriptions) > left:
                return HolderPage(tuple(found), found[-1].holder)
            record = self._record(holder)
            left -= len(record.subscriptions)
            found.append(record)
        return HolderPage(tuple(found), following)

    def _record(self, holder: Holder) -> HolderRecord:
        subscriptions = tuple(holder.subscriptions.values())
        return HolderRecord(
            holder.name,
            holder.session,
            self._tables.now - holder.since,
            len(holder.references),
            sum(len(each.grants) for each in subscriptions),
            len(subscriptions),
            tuple(map(self._subscription_record, subscriptions[:MAX_SUBSCRIPTIONS])),
        )

    def _subscription_record(self, each: Subscription) -> SubscriptionRecord:
        return SubscriptionRecord(
            each.number,
            each.sid,
            each.token,
            tuple(sorted(each.kinds)),
            each.priority,
            each.hold,
            each.attached,
            len(each.grants),
            lag_of(each, self._tables.now) if each.number in self._tables.lagging else None,
            each.awaited,
        )
