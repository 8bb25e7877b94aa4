"""An open `/dev/iommu`: objects come and go, and none is forgotten."""

import errno
import logging

import pytest

from ioasid.linux import NoIommufd, NotPermitted
from ioasid.linux._iommufd import Iommufd, close
from ioasid.testing import FakeKernel


def failing(number: int, *names: str) -> object:
    """A hook that fails calls of these names."""

    def before(name: str) -> None:
        if name in names:
            raise OSError(number, "planted")

    return before


def test_objects_are_made_and_discarded() -> None:
    """An address space is there until it is discarded, and all go when it is closed."""
    kernel = FakeKernel()
    iommufd = Iommufd(kernel)
    first, second = iommufd.new_address_space(), iommufd.new_address_space()
    assert (2, 1) == (kernel.objects, kernel.descriptors)
    iommufd.discard(first)
    assert 1 == kernel.objects
    iommufd.map(second, 0x1000, 0x2000, 0x1000, write=False)
    iommufd.unmap(second, 0x1000, 0x1000)
    iommufd.close()
    assert (0, 0) == (kernel.objects, kernel.descriptors)


def test_what_could_not_be_destroyed_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """An object that stays is told of once, and goes with the next that is discarded."""
    kernel = FakeKernel()
    iommufd = Iommufd(kernel)
    first, second = iommufd.new_address_space(), iommufd.new_address_space()
    kernel.before = failing(errno.EBUSY, "IOMMU_DESTROY")  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING, "ioasid"):
        iommufd.discard(first)
        iommufd.discard()
    assert 1 == len(caplog.records)
    kernel.before = None
    iommufd.discard(second)
    assert 0 == kernel.objects
    iommufd.discard()


@pytest.mark.parametrize(("number", "kind"), [(2, NoIommufd), (13, NotPermitted)])
def test_a_kernel_without_it_says_so(number: int, kind: type[Exception]) -> None:
    """Without `/dev/iommu`, or without permission, the error says what to do."""
    kernel = FakeKernel()
    kernel.before = failing(number, "open")  # type: ignore[assignment]
    with pytest.raises(kind, match="/dev/iommu"):
        Iommufd(kernel)
    assert 0 == kernel.descriptors


def test_a_close_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A descriptor counts as closed whatever the kernel says."""
    with caplog.at_level(logging.WARNING, "ioasid"):
        close(FakeKernel(), 99, "/dev/none")
    assert ["closing /dev/none failed"] == [each.getMessage() for each in caplog.records]
