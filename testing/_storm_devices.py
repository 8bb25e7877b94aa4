"""The devices that the VMs of a storm share: their hardware works on, and is replaced."""

import anyio
from attrs import define

from ioasid.actors import DmaFault, UnknownTransfer
from ioasid.core import IoasidError
from ioasid.testing._storm_operations import GONE
from ioasid.testing._storm_scene import Scene

__all__: list[str] = []

PACE = 0.005
"""Seconds after which hardware does its next step."""


@define(eq=False)
class Devices:
    """Adds devices, one for each that was given up as well."""

    scene: Scene
    _added: int = 0

    async def add(self) -> None:
        """Add a device and let its hardware work."""
        name = f"dsa{self._added}"
        self._added += 1
        await self.scene.host.add_device(name)
        self.scene.devices.append(name)
        self.scene.tasks.start_soon(self._work, name)

    async def _work(self, name: str) -> None:
        # Completes what is being drained, some time later, and the oldest of what piles up; a
        # device that is given up is replaced.
        vdcm = self.scene.host.device(name)
        before: set[int] = set()
        while not vdcm.ended.is_set():
            device = vdcm.device
            draining = {
                transfer
                for context in device.contexts.values()
                if context.stopping
                for transfer in context.in_flight
            }
            async with anyio.create_task_group() as tasks:
                for transfer in sorted(draining & before | set(sorted(device.transfers)[:-64])):
                    tasks.start_soon(self._complete, name, transfer)
            before = draining
            await anyio.sleep(PACE)
        self.scene.happened("devices given up")
        await self.add()
        self.scene.devices.remove(name)

    async def _complete(self, name: str, transfer: int) -> None:
        expected = (*GONE, UnknownTransfer, DmaFault)
        try:
            await self.scene.host.complete(name, transfer)
        except IoasidError as error:
            self.scene.refused("hardware", error, expected)
