"""What every request that names an ID is refused with: the ID is unknown, or another set's."""

import pytest
from msgspec.structs import replace

from ioasid.core import (
    AttachData,
    AttachSpid,
    DetachData,
    DetachSpid,
    EventKind,
    Find,
    Free,
    FreeSet,
    Get,
    InvalidArgument,
    IoasidFreePending,
    Notify,
    NotOfThisSet,
    Put,
    Request,
    UnknownIoasid,
    UnknownSet,
)
from tests.core.helpers import Driver

OF_ONE_ID = [
    Free(1, 1),
    Get(1, 1),
    Put(1, 1),
    Find(1, 1),
    AttachData(1, 0, 1),
    DetachData(1, 1),
    AttachSpid(1, 2, 1),
    DetachSpid(1, 1),
    Notify(1, EventKind.BIND, 1),
]


@pytest.mark.parametrize("request_", OF_ONE_ID, ids=lambda each: type(each).__name__)
def test_permission(driver: Driver, request_: Request) -> None:
    """EACCES: the ID is not of the set that the request names; ENOENT if there is no such set."""
    driver.set()
    driver.bound(spid=1)
    driver.ask(Get(1))
    driver.refused(UnknownSet, request_, sid=1)
    driver.set("vm-2")
    driver.refused(NotOfThisSet, request_, ioasid=1, sid=1)
    driver.free(1)
    in_quarantine = IoasidFreePending if isinstance(request_, Get) else NotOfThisSet
    driver.refused(in_quarantine, request_, ioasid=1)
    driver.ask(FreeSet(1))
    gone = IoasidFreePending if isinstance(request_, Get) else UnknownSet
    driver.refused(gone, request_)
    driver.set("vm-3")
    driver.refused(gone, request_)


@pytest.mark.parametrize("request_", OF_ONE_ID, ids=lambda each: type(each).__name__)
def test_unknown_ids(driver: Driver, request_: Request) -> None:
    """ENOENT: an ID that was never allocated, and one that has been reclaimed."""
    driver.refused(UnknownIoasid, request_, ioasid=1)
    driver.set()
    driver.free(driver.alloc())
    driver.refused(UnknownIoasid, request_, ioasid=1)


@pytest.mark.parametrize("request_", OF_ONE_ID, ids=lambda each: type(each).__name__)
def test_what_is_malformed_is_said_first(driver: Driver, request_: Request) -> None:
    """EINVAL comes before ENOENT: a set that none can be is refused, be there such an ID or not."""
    driver.refused(InvalidArgument, replace(request_, sid=-1), argument="sid")
    driver.set()
    driver.alloc()
    driver.refused(InvalidArgument, replace(request_, sid=-1), argument="sid")
