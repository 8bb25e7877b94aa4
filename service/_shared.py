"""What all connections of a server share."""

from anyio.abc import TaskGroup
from attrs import define

from ioasid.actors._local_port import LocalPort
from ioasid.service._account import Account
from ioasid.service._gate import Gate
from ioasid.service._limits import Limits
from ioasid.service._memory import Memories

__all__: list[str] = []


@define(eq=False)
class Shared:
    """What all connections of a server share."""

    driver: LocalPort
    limits: Limits
    epoch: str
    memories: Memories
    account: Account
    gate: Gate | None = None
    tasks: TaskGroup | None = None
    """Where what is at the gate waits."""
