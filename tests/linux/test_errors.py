"""Every errno of the kernel as a typed error that says what to do."""

import errno

import pytest

import ioasid.linux
from ioasid.core import IoasidError
from ioasid.linux import (
    DeviceGone,
    KernelExhausted,
    KernelFailed,
    KernelRefused,
    KernelTooOld,
    MappingExists,
    NoPasids,
    NotPermitted,
    ObjectGone,
    ObjectInUse,
)
from ioasid.linux._errors import refusal
from tests.core.test_errors import check_errno, check_message, check_template, concrete

ERRNOS = {
    "DeviceGone": "ENODEV",
    "IommuClosed": "ESHUTDOWN",
    "KernelExhausted": "ENOSPC",
    "KernelFailed": "EIO",
    "KernelRefused": "EINVAL",
    "KernelTooOld": "ENOTTY",
    "MappingExists": "EEXIST",
    "NoIommufd": "ENOENT",
    "NoPasids": "EOPNOTSUPP",
    "NoVfioDevice": "ENOENT",
    "NotAttached": "ENOENT",
    "NotLinux": "ENOSYS",
    "NotPermitted": "EACCES",
    "ObjectGone": "ENOENT",
    "ObjectInUse": "EBUSY",
}


def test_every_error_is_listed() -> None:
    """The table of errnos here names every error of the kernel and no other."""
    assert sorted(ERRNOS) == sorted(kind.__name__ for kind in concrete(ioasid.linux))


@pytest.mark.parametrize("kind", concrete(ioasid.linux))
def test_it_has_errno_template_and_message(kind: type[IoasidError]) -> None:
    """An error carries its errno, one template with all of its facts, and the message of both."""
    check_errno(kind, ERRNOS[kind.__name__])
    check_template(kind)
    check_message(kind)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.EACCES, NotPermitted, "EACCES"),
        (errno.EPERM, NotPermitted, "EACCES"),
        (errno.ENOTTY, KernelTooOld, "ENOTTY"),
        (errno.E2BIG, KernelTooOld, "ENOTTY"),
        (errno.EINVAL, KernelRefused, "EINVAL"),
        (errno.EBUSY, ObjectInUse, "EBUSY"),
        (errno.ENOENT, ObjectGone, "ENOENT"),
        (errno.EEXIST, MappingExists, "EEXIST"),
        (errno.ENODEV, DeviceGone, "ENODEV"),
        (errno.ENXIO, DeviceGone, "ENODEV"),
        (errno.EOPNOTSUPP, NoPasids, "EOPNOTSUPP"),
        (errno.ENOMEM, KernelExhausted, "ENOSPC"),
        (errno.EMFILE, KernelExhausted, "ENOSPC"),
        (errno.EIO, KernelFailed, "EIO"),
        (errno.ERANGE, KernelFailed, "EIO"),
    ],
)
def test_every_errno_has_its_class(number: int, kind: type[IoasidError], code: str) -> None:
    """An errno becomes an error of its class, which names what was asked of what."""
    error = refusal("IOMMU_DESTROY", "object 5", OSError(number, "refused"))
    assert (kind, code) == (type(error), error.code)
    assert "object 5" in str(error)
    if isinstance(error, KernelExhausted | KernelFailed):
        assert errno.errorcode[number] == error.reason


def test_an_error_without_a_name_is_a_failure() -> None:
    """A number that has no name, or none at all, is told as it is."""
    assert "failed with 9999" in str(refusal("open", "/dev/iommu", OSError(9999, "odd")))
    assert "failed with 0" in str(refusal("open", "/dev/iommu", OSError("odd")))
