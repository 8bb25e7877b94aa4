"""What a storm is asked for, and what follows from it."""

from typing import Any

from attrs import Attribute, field, frozen

from ioasid.core import InvalidArgument

__all__ = ["StormSettings"]

TASKS_PER_VM = 2


def _count(most: int) -> Any:
    def check(_: object, attribute: "Attribute[Any]", value: object) -> None:
        if type(value) is not int or not 1 <= value <= most:
            raise InvalidArgument.of(attribute.name, value, f"a whole number of 1 to {most}")

    return check


def _rate(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
        raise InvalidArgument.of(attribute.name, value, "a number from 0 to 1")


def _seed(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if type(value) is not int:
        raise InvalidArgument.of(attribute.name, value, "a whole number")


def _seconds(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if type(value) not in (int, float) or not 0 < value < float("inf"):  # type: ignore[operator]
        raise InvalidArgument.of(attribute.name, value, "a number of seconds above 0")


@frozen
class StormSettings:
    """How large a storm is, and how bad. Raises `InvalidArgument` for what makes no sense."""

    vms: int = field(default=10, validator=_count(100_000))
    """How many VMs there are at a time, 1 to 100,000; two tasks act for each."""
    devices: int = field(default=2, validator=_count(10_000))
    """How many devices the VMs share, 1 to 10,000."""
    ops: int = field(default=5_000, validator=_count(10**9))
    """How many operations all tasks do together, 1 to 10^9."""
    crash_rate: float = field(default=0.01, validator=_rate)
    """Which part of the operations makes something crash, 0 to 1."""
    seed: int = field(default=1, validator=_seed)
    """What every task draws its operations from, any int."""
    stall: float = field(default=60.0, validator=_seconds)
    """Seconds without any operation completed after which the storm counts as stuck."""

    @property
    def workers(self) -> int:
        """How many tasks share the operations."""
        return self.vms * TASKS_PER_VM

    @property
    def system_quota(self) -> int:
        """How many IDs the host's processes may have: not always enough."""
        return self.workers + 2

    @property
    def capacity(self) -> int:
        """How many IDs the host has: not always enough for every VM's quota."""
        return 1 + self.system_quota + self.vms * 20 + 32

    def share(self, worker: int) -> int:
        """Return how many operations one task does, by its number from 0."""
        return self.ops // self.workers + (worker < self.ops % self.workers)
