"""Metrics in the Prometheus text format; `_scrapes` serves them."""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from math import inf
from typing import Any, Final

from attrs import frozen

from ioasid.actors._local_port import LocalPort
from ioasid.actors._port import answered
from ioasid.core import (
    QUARANTINE_AGES,
    DiskFailed,
    DiskFull,
    DiskReadOnly,
    GroupPage,
    GroupRecord,
    ListGroups,
    ListSets,
    SetPage,
    Statistics,
    TakeStatistics,
)
from ioasid.service._server import Server, ServerStatistics

__all__ = ["METRICS"]

_TOLD_OF: Final = {each.__name__: 0 for each in (DiskFailed, DiskFull, DiskReadOnly)}
"""Refusals that an alert is about: there from the beginning, or the first ones show no rise."""

METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "ioasid_capacity": ("gauge", "IDs that there are."),
    "ioasid_reserved": ("gauge", "IDs that are never given out."),
    "ioasid_available": ("gauge", "IDs that no set, group or reservation has."),
    "ioasid_ids": ("gauge", "IDs that are allocated, by state; FREE_PENDING is quarantine."),
    "ioasid_quarantine": ("gauge", "IDs in quarantine for so many seconds or longer."),
    "ioasid_sets": ("gauge", "IOASID sets, by state."),
    "ioasid_sets_used": ("gauge", "Sets that have used this share of their quota or more."),
    "ioasid_group_limit": ("gauge", "IDs that a group may promise."),
    "ioasid_group_used": ("gauge", "IDs that a group has promised to its sets and groups."),
    "ioasid_holders": ("gauge", "Holders, by state; a suspended one is down and owes something."),
    "ioasid_subscriptions": ("gauge", "Subscriptions."),
    "ioasid_events_in_flight": ("gauge", "Staged events that are not acknowledged by all."),
    "ioasid_lag_seconds": ("gauge", "How long a holder has not acknowledged its oldest message."),
    "ioasid_lag_messages": ("gauge", "Messages that a holder has not acknowledged."),
    "ioasid_overdue": ("gauge", "Whether a holder is past its acknowledgement deadline."),
    "ioasid_mailbox_waiting": ("gauge", "Requests that await their turn."),
    "ioasid_batches_total": ("counter", "Batches of requests that were decided."),
    "ioasid_commits_total": ("counter", "Commits to the journal."),
    "ioasid_asks_total": ("counter", "Requests that came by the socket and were answered."),
    "ioasid_ask_seconds": ("histogram", "From a request's coming to its answer, but for waits."),
    "ioasid_refusals_total": ("counter", "Refused requests and connections, by error."),
    "ioasid_connections": ("gauge", "Connections to the service."),
    "ioasid_connections_total": ("counter", "Connections that came, the refused ones included."),
    "ioasid_sessions": ("gauge", "Sessions of those connections."),
    "ioasid_queued": ("gauge", "Answers and messages that wait for slow readers."),
    "process_start_time_seconds": ("gauge", "When the service began: it changes by a restart."),
    "process_cpu_seconds_total": ("counter", "Processor time that the service took."),
    "process_resident_memory_bytes": ("gauge", "Memory that the service has."),
    "process_virtual_memory_bytes": ("gauge", "Addresses that the service has."),
    "process_open_fds": ("gauge", "Descriptors that the service has open."),
    "process_max_fds": ("gauge", "Descriptors that it may have open."),
}
"""Every series there is: its type, and what it says. The last ones are those of any process."""
SHARES: Final = (0.5, 0.8, 0.95, 1.0)
"""Of a quota, for `ioasid_sets_used`."""

PAGE: Final = 1000
"""Rows to ask the allocator for at once."""


@frozen
class Figures:
    """What there is to show."""

    allocator: Statistics
    sets_used: tuple[int, ...]
    """By `SHARES`."""
    groups: tuple[GroupRecord, ...]
    server: ServerStatistics
    batches: int
    commits: int


async def take_figures(driver: LocalPort, server: Server) -> Figures:
    """Ask for everything. Raises `AllocatorClosed`."""
    figures = answered(await driver.send(TakeStatistics()), Statistics)
    used = [0] * len(SHARES)
    sets = SetPage((), 0)
    after: int | None = None
    while sets.next is not None:
        sets = answered(await driver.send(ListSets(after, PAGE)), SetPage)
        after = sets.next
        for each in sets.sets:
            for place, share in enumerate(SHARES):
                used[place] += each.allocated >= share * each.quota
    groups: list[GroupRecord] = []
    found = GroupPage((), "")
    name: str | None = None
    while found.next is not None:
        found = answered(await driver.send(ListGroups(name, PAGE)), GroupPage)
        name = found.next
        groups += found.groups
    return Figures(
        figures, tuple(used), tuple(groups), server.statistics(), driver.batches, driver.commits
    )


class Exposition:
    """Makes text of figures, with those of this process besides.

    Raises ModuleNotFoundError without prometheus-client, which the extra `service` brings.
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        self._figures: Figures | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self, figures: Figures) -> bytes:
        """Return figures in the text format that Prometheus reads."""
        from prometheus_client import generate_latest

        self._figures = figures
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Any]:
        """Give each series, as prometheus-client has them."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        if self._figures is None:
            # It is registered.
            return
        for name, label, values in _values(self._figures):
            kind, words = METRICS[name]
            family = kinds[kind](name, words, labels=[label] if label else [])
            for value, number in values.items():
                family.add_metric([value] if label else [], number)
            yield family
        asks = self._figures.server.asks
        counts = accumulate(count for _, count in asks.took)
        buckets = [
            ("+Inf" if bound == inf else str(bound), float(count))
            for (bound, _), count in zip(asks.took, counts, strict=True)
        ]
        name = "ioasid_ask_seconds"
        yield HistogramMetricFamily(name, METRICS[name][1], buckets, asks.seconds)


def _values(figures: Figures) -> Iterator[tuple[str, str, dict[str, float]]]:
    # The name, the label, and what is said of each value of it.
    of, server = figures.allocator, figures.server
    ages = (f"{age:g}" for age in QUARANTINE_AGES)
    shares = (f"{share:g}" for share in SHARES)
    pending = of.sets_free_pending
    seconds: dict[str, float] = {}
    messages: dict[str, float] = {}
    overdue: dict[str, float] = {}
    for each in of.lagging:
        name = each.holder
        seconds[name] = max(seconds.get(name, 0), each.oldest_age)
        messages[name] = messages.get(name, 0) + each.queued + each.folded
        overdue[name] = max(overdue.get(name, 0), int(each.overdue))
    plain = {
        "ioasid_capacity": of.capacity,
        "ioasid_reserved": of.reserved,
        "ioasid_available": of.available,
        "ioasid_subscriptions": of.subscriptions,
        "ioasid_events_in_flight": of.in_flight,
        "ioasid_mailbox_waiting": of.mailbox,
        "ioasid_batches_total": figures.batches,
        "ioasid_commits_total": figures.commits,
        "ioasid_connections": server.connections,
        "ioasid_connections_total": server.accepted,
        "ioasid_sessions": server.sessions,
        "ioasid_queued": server.queued,
    }
    for name, value in plain.items():
        yield name, "", {"": value}
    yield "ioasid_ids", "state", {"ACTIVE": of.active, "FREE_PENDING": of.free_pending}
    yield "ioasid_quarantine", "seconds", dict(zip(ages, of.quarantine, strict=True))
    yield "ioasid_sets", "state", {"ACTIVE": of.sets - pending, "FREE_PENDING": pending}
    yield "ioasid_sets_used", "share", dict(zip(shares, figures.sets_used, strict=True))
    yield "ioasid_group_limit", "group", {each.name: each.limit for each in figures.groups}
    yield "ioasid_group_used", "group", {each.name: each.used for each in figures.groups}
    yield "ioasid_holders", "state", {"live": of.sessions, "suspended": of.suspended}
    yield "ioasid_lag_seconds", "holder", seconds
    yield "ioasid_lag_messages", "holder", messages
    yield "ioasid_overdue", "holder", overdue
    yield "ioasid_asks_total", "request", dict(server.asks.by_request)
    yield "ioasid_refusals_total", "error", {**_TOLD_OF, **server.refusals}
