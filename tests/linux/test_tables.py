"""The kernel's tables under a driver: attached once, detached for sure, and nothing left."""

import errno
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from ioasid.actors import AlreadyProgrammed, Entry, PasidTooWide, PasidZero, UnknownDevice
from ioasid.core import InvalidArgument, IoasidError
from ioasid.linux import IommuClosed, KernelFailed, LinuxTables, NoPasids, NotAttached, open_iommu
from ioasid.testing import FakeKernel

pytestmark = pytest.mark.anyio

ENTRY = Entry("vm-1", 101, 1)
ENDS = ("close", "IOMMU_DESTROY")
FAILING = 23
"""How many calls of a life may fail."""


def path(device: str) -> str:
    """Where a device is."""
    return f"/dev/vfio/devices/{device}"


async def test_devices_share_the_address_space_of_an_id() -> None:
    """One ID on two devices is one address space, until the second one is detached."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        hardware = iommu.hardware
        for device in ("dsa0", "dsa1"):
            assert 20 == await hardware.open(device, 20)
        before = kernel.objects
        await hardware.attach("dsa0", 5, ENTRY)
        await hardware.attach("dsa1", 5, ENTRY)
        await hardware.attach("dsa1", 6, ENTRY)
        # Two address spaces, and a page table for each device's.
        assert before + 5 == kernel.objects
        attached = kernel.attached()
        assert [{5}, {5, 6}] == [{*attached[path(each)]} for each in ("dsa0", "dsa1")]
        assert ({5}, {5, 6}) == (hardware.attached("dsa0"), hardware.attached("dsa1"))
        await hardware.detach("dsa0", 5)
        assert before + 4 == kernel.objects
        await hardware.detach("dsa1", 5)
        await hardware.detach("dsa1", 6)
        assert (before, {}) == (kernel.objects, kernel.attached())
        await hardware.detach("dsa1", 6)
        await hardware.detach("gone", 6)
        with pytest.raises(NotAttached):
            hardware.address_space(5)
        with pytest.raises(UnknownDevice):
            hardware.device_space("gone")
    assert (0, 0) == (kernel.descriptors, kernel.objects)


async def test_a_width_is_the_smaller_one() -> None:
    """A device has as many bits as it is said to have, or as many as it has."""
    kernel = FakeKernel({path("small"): 8, path("plain"): 0})
    async with open_iommu(kernel=kernel) as iommu:
        hardware = iommu.hardware
        assert (8, 6) == (await hardware.open("small", 20), await hardware.open("small", 6))
        with pytest.raises(NoPasids):
            await hardware.open("plain", 20)
        assert 2 == kernel.descriptors
        for device, ioasid, kind in (
            ("small", 256, PasidTooWide),
            ("small", 0, PasidZero),
            ("plain", 5, UnknownDevice),
        ):
            with pytest.raises(kind):
                await hardware.attach(device, ioasid, ENTRY)
        await hardware.attach("small", 255, ENTRY)
        with pytest.raises(AlreadyProgrammed):
            await hardware.attach("small", 255, ENTRY)
        assert ({path("small"): 255}, 0) == (
            {each: pasid for each, pasids in kernel.attached().items() for pasid in pasids},
            kernel.replaced,
        )


@pytest.mark.parametrize("device", ["../vfio0", "a/b", ".", ".."])
async def test_a_name_is_a_file_in_its_folder(device: str) -> None:
    """A name that leads elsewhere is refused, unless it was given a path."""
    kernel = FakeKernel()
    async with open_iommu({"a/b": path("vfio7")}, kernel=kernel) as iommu:
        if device == "a/b":
            await iommu.open(device, 20)
            await iommu.attach(device, 5, ENTRY)
            assert [path("vfio7")] == [*kernel.attached()]
            return
        with pytest.raises(InvalidArgument, match="device"):
            await iommu.open(device, 20)
        assert 1 == kernel.descriptors


async def test_a_device_is_closed_after_its_pasids_are_gone() -> None:
    """Closing detaches each PASID by name, then closes, then destroys what was for them."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        await iommu.open("dsa0", 20)
        for ioasid in (5, 6):
            await iommu.attach("dsa0", ioasid, ENTRY)
        kernel.calls.clear()
        await iommu.close("dsa0")
        assert ["VFIO_DEVICE_DETACH_IOMMUFD_PT"] * 2 + ["close"] == kernel.calls[:3]
        assert {"IOMMU_DESTROY"} == {*kernel.calls[3:]}
        assert (1, 0) == (kernel.descriptors, kernel.objects)
        await iommu.close("dsa0")


async def test_what_can_not_be_detached_goes_with_its_device() -> None:
    """A device whose PASIDs the kernel does not detach is closed, which detaches them."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        await iommu.open("dsa0", 20)
        await iommu.attach("dsa0", 5, ENTRY)

        def before(name: str) -> None:
            if name == "VFIO_DEVICE_DETACH_IOMMUFD_PT":
                raise OSError(errno.EIO, "planted")

        kernel.before = before
        with pytest.raises(KernelFailed):
            await iommu.detach("dsa0", 5)
        assert ({5: ENTRY}, {5}) == (iommu.tables["dsa0"], iommu.hardware.attached("dsa0"))
        await iommu.close("dsa0")
        assert (1, 0, {}) == (kernel.descriptors, kernel.objects, kernel.attached())


def calls(hardware: LinuxTables) -> list[Callable[[], Awaitable[Any]]]:
    """A life of two devices and two IDs."""
    return [
        partial(hardware.open, "dsa0", 20),
        partial(hardware.open, "dsa1", 20),
        partial(hardware.attach, "dsa0", 5, ENTRY),
        partial(hardware.attach, "dsa1", 5, ENTRY),
        partial(hardware.attach, "dsa1", 6, ENTRY),
        partial(hardware.detach, "dsa1", 5),
        partial(hardware.close, "dsa0"),
        partial(hardware.detach, "dsa1", 6),
        partial(hardware.close, "dsa1"),
    ]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("at", range(FAILING))
async def test_nothing_leaks_whatever_fails(at: int) -> None:
    """Whichever call fails, it changes nothing; after all, no descriptor and no object is left."""
    kernel = FakeKernel()
    left = at
    failed = 0

    def before(name: str) -> None:
        nonlocal left, failed
        if name not in ENDS:
            left -= 1
            if left == -1:
                failed += 1
                raise OSError(errno.EIO, "planted")

    async with open_iommu(kernel=kernel) as iommu:
        hardware = iommu.hardware
        kernel.before = before
        for call in calls(hardware):
            state = kernel.attached(), kernel.objects, kernel.descriptors
            try:
                await call()
            except KernelFailed:
                assert state == (kernel.attached(), kernel.objects, kernel.descriptors)
                await call()
        assert (1, 0) == (kernel.descriptors, kernel.objects)
    assert 0 == kernel.descriptors
    assert 1 == failed


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_every_call_was_failed_once() -> None:
    """The test above fails each call that a life makes, but those that only end something."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        kernel.calls.clear()
        for call in calls(iommu.hardware):
            await call()
        assert FAILING == len([each for each in kernel.calls if each not in ENDS])


async def test_after_the_scope_it_is_closed() -> None:
    """Whoever keeps the tables beyond their scope is told so."""
    async with open_iommu(kernel=FakeKernel()) as iommu:
        await iommu.open("dsa0", 20)
        await iommu.attach("dsa0", 5, ENTRY)
    with pytest.raises(IommuClosed):
        await iommu.hardware.open("dsa1", 20)
    with pytest.raises(IoasidError):
        await iommu.hardware.attach("dsa0", 6, ENTRY)
    assert [] == [*iommu.hardware.attached("dsa0")]
