"""Flows: each ends where its subscriber was done with it, in whatever way."""

from ioasid.core import Event, EventKind, Resync
from ioasid.recorder._flows import Flows
from ioasid.recorder._rows import Timeline


def free(seq: int) -> Event:
    """A FREE of an ID that has the number of the event."""
    return Event(seq, EventKind.FREE, seq, 0)


def ends(flows: Flows) -> list[int | None]:
    """The rows in which the flows end."""
    return [each.end for each in flows.timeline.flows]


def test_acknowledged() -> None:
    """A message ends with its acknowledgement, and a second one ends nothing."""
    flows = Flows(Timeline("x"))
    for seq in (1, 2):
        flows.begin(7, "kvm", free(seq), seq, 0.0)
    assert ["FREE 2"] == [each.text for each in flows.acknowledge([(7, 2), (8, 1)], 5, 0.5)]
    assert [] == [*flows.acknowledge([(7, 2)], 6, 0.6)]
    assert [None, 5] == ends(flows)


def test_folded_into_a_resync() -> None:
    """What is dropped ends with the Resync, or the Resync that takes that one's place."""
    flows = Flows(Timeline("x"))
    for seq in (1, 2, 3):
        flows.begin(7, "kvm", free(seq), seq, 0.0)
    assert flows.defer(7, 1) is flows.timeline.flows[0]
    assert 1 == flows.fold(7, 2)
    flows.begin(7, "kvm", Resync(4, ()), 4, 0.0)
    assert ["FREE 2"] == [each.text for each in flows.acknowledge([(7, 2)], 5, 0.0)]
    assert [None, 5, None, None] == ends(flows)
    flows.fold_all(7)
    flows.begin(7, "kvm", Resync(9, ()), 9, 0.0)
    assert 1 == len([*flows.acknowledge([(7, 9)], 10, 0.0)])
    assert [10, 5, 10, 10, 10] == ends(flows)


def test_ended() -> None:
    """With its subscription everything ends: what is open, folded, or stood for."""
    flows = Flows(Timeline("x"))
    flows.begin(7, "kvm", free(1), 1, 0.0)
    flows.fold(7, None)
    flows.begin(7, "kvm", Resync(2, ()), 2, 0.0)
    flows.begin(7, "kvm", free(3), 3, 0.0)
    flows.fold(7, 2)
    flows.begin(8, "vtd", free(4), 4, 0.0)
    assert {7, 8} == flows.subscriptions
    flows.end(7, 6, 0.0)
    assert [6, 6, 6, None] == ends(flows)
