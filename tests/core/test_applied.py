"""What a journal keeps: a message that says what was carried out, when and for whom."""

from ioasid.core import Alloc, Allocator, AllocSet, Applied, Request, Tick


def test_the_same_requests_lead_to_the_same_state() -> None:
    """An allocator that is given what another one carried out ends in its state."""
    first, second = Allocator(), Allocator()
    applied = []
    requests: list[Request] = [AllocSet("vm-1", 8), Alloc(0), Alloc(0)]
    for time, request in enumerate(requests, start=1):
        first.handle(0, Tick(float(time)))
        first.handle(first.session, request)
        applied.append(Applied(first.index, float(time), first.session, request))
    for each in applied:
        second.handle(0, Tick(each.time))
        second.handle(each.session, each.request)
        assert each.index == second.index
    assert first.snapshot() == second.snapshot()
