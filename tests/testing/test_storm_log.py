"""What the library logs during a storm."""

import logging
from collections import Counter

from ioasid.actors import PlantedFault
from ioasid.testing._storm_log import log_watch

logger = logging.getLogger("ioasid")


def test_a_crash_that_nobody_planted_is_a_violation() -> None:
    """Planted crashes and overdue subscribers are counted; any other crash is objected to."""
    happened: Counter[str] = Counter()
    violated: list[str] = []
    with log_watch(happened, violated.append):
        planted, bug = PlantedFault("told to"), KeyError(1)
        logger.warning("%s crashed; restart 1 of 3", "kvm:vm-1", exc_info=planted)
        logger.error("%s gave up after 3 restarts", "vdcm:dsa0", exc_info=planted)
        logger.warning("sub:1 has not acknowledged something")
        assert [] == violated
        logger.warning("vtd crashed; restart 1 of 3", exc_info=bug)
        logger.error("vtd failed on a request, and goes on", exc_info=bug)
        logger.warning("vtd crashed; nobody knows why")
    assert {
        "kvm restarted": 1,
        "vdcm given up": 1,
        "overdue subscribers logged": 1,
        "vtd restarted": 2,
    } == happened
    assert [
        "a crash that nobody planted: vtd crashed; restart 1 of 3 (KeyError(1))",
        "a bug in a handler: vtd failed on a request, and goes on (KeyError(1))",
        "a crash that nobody planted: vtd crashed; nobody knows why (None)",
    ] == violated


def test_the_log_is_given_back() -> None:
    """After the scope the log goes where it went before."""
    before = logger.propagate, list(logger.handlers)
    with log_watch(Counter(), lambda _: None):
        assert not logger.propagate
    assert before == (logger.propagate, list(logger.handlers))
