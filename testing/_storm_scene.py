"""Where a storm happens: the host, who watches it, and what all parts of the storm share."""

from collections.abc import Callable

from anyio import CancelScope
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field

from ioasid.actors import Host, HostTap, Session
from ioasid.core import IoasidError, UnknownHolder
from ioasid.testing._storm_operations import Refusals
from ioasid.testing._storm_report import StormReport
from ioasid.testing._storm_settings import StormSettings
from ioasid.testing._storm_witness import Witness

__all__: list[str] = []


@define(eq=False)
class Scene:
    """One host in a storm."""

    settings: StormSettings
    report: StormReport
    violated: Callable[[str], None]
    witness: Witness
    tap: HostTap
    host: Host
    tasks: TaskGroup
    """What goes on until the end of the storm."""
    devices: list[str] = field(factory=list)
    """The names of the devices that serve."""
    over: bool = False
    """Whether all operations are done."""
    leaving: bool = False
    """Whether drivers are let go."""

    @property
    def allocator(self) -> Session:
        """The host's own session."""
        return self.host.allocator

    def device(self, number: int) -> str:
        """Return one of the devices."""
        return self.devices[number % len(self.devices)]

    def happened(self, what: str) -> None:
        """Count something for the report."""
        self.report.happened[what] += 1

    def check(self, holds: bool, otherwise: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self.violated(otherwise)

    def refused(self, kind: str, error: IoasidError, expected: Refusals) -> None:
        """Count a refusal; one that was not to be expected is a violation."""
        self.report.refused[kind, type(error).__name__] += 1
        explained = isinstance(error, expected)
        self.check(explained, f"{kind} was refused with {error!r}, which nothing explains")

    async def write_off(self, holder: str) -> None:
        """Evict a holder, if it is there."""
        try:
            await self.allocator.evict(holder)
        except UnknownHolder:
            pass
        else:
            self.happened("holders evicted")


async def passes(count: int) -> None:
    """Let everybody else go on, so many times."""
    for _ in range(count):
        await checkpoint()


async def cancel_later(scope: CancelScope, after: int) -> None:
    """Cancel a scope after some passes of the event loop."""
    await passes(after)
    scope.cancel()
