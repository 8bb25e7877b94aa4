"""Permits: the table of roles, request by request."""

import pytest

from ioasid.core import AdjustSet, AllocSet
from ioasid.service import PermissionDenied, Permit, Role
from ioasid.service._permits import OPERATORS_ONLY
from tests.core.examples import REQUESTS
from tests.service.services import a_permit


@pytest.mark.parametrize("role", [Role.DRIVER, Role.TENANT])
def test_what_is_for_operators_only(role: Role) -> None:
    """Capacity, groups, quotas, evictions and snapshots are refused to everybody else, by name."""
    refused = set()
    for request in REQUESTS:
        a_permit(Role.OPERATOR).check(request)
        try:
            a_permit(role).check(request)
        except PermissionDenied as error:
            assert type(request).__name__ in str(error)
            refused.add(type(request))
    assert OPERATORS_ONLY == refused
    assert 18 == len(refused)


def test_a_tenant_with_a_group() -> None:
    """It may ask for its set, too; what set that is, is decided elsewhere."""
    assert OPERATORS_ONLY - {AllocSet, AdjustSet} == a_permit(Role.TENANT, group="a").denied
    assert OPERATORS_ONLY == a_permit(Role.DRIVER, group="a").denied
    with pytest.raises(
        PermissionDenied, match=r"its set \(AllocSet\) without a `group` in its rule"
    ):
        a_permit(Role.TENANT).check(AllocSet("vm-1", 5))


def test_names_of_holders() -> None:
    """An operator may have any; others those of their prefixes, and without one none."""
    a_permit(Role.OPERATOR).check_name("anything")
    driver = a_permit(Role.DRIVER, holders=("vdcm:", "vtd"))
    for name in ("vdcm:dsa0", "vtd", "vdcm:"):
        driver.check_name(name)
    for name in ("vdcm", "kvm:vm-1", "", "Vdcm:", "my-vtd"):
        with pytest.raises(PermissionDenied, match="only one that begins with 'vdcm:' or 'vtd';"):
            driver.check_name(name)
    with pytest.raises(PermissionDenied):
        a_permit(Role.TENANT).check_name("kvm:vm-1")


def test_tokens() -> None:
    """A token is one, or what begins like one that ends with a star."""
    permit = a_permit(Role.TENANT, tokens=("vm-1", "web-*"))
    found = {
        each: permit.allows_token(each) for each in ("vm-1", "vm-11", "web-", "web-2", "we", "")
    }
    assert ["vm-1", "web-", "web-2"] == [each for each, allowed in found.items() if allowed]


def test_narrowing() -> None:
    """Who narrows gives no more than it has, and who is narrow gives nothing."""
    narrow = Permit(Role.TENANT, a_permit(Role.TENANT).uid, ("kvm:1",), ("vm-1",))
    assert narrow == a_permit(Role.OPERATOR).narrowed("vm-1", ("kvm:1",))
    assert narrow == a_permit(Role.DRIVER, holders=("kvm:",)).narrowed("vm-1", ("kvm:1",))
    with pytest.raises(PermissionDenied):
        a_permit(Role.DRIVER, holders=("vdcm:",)).narrowed("vm-1", ("kvm:1",))
    with pytest.raises(PermissionDenied):
        narrow.narrowed("vm-1", ("kvm:1",))
