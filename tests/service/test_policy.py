"""Policies: which rule holds for whom."""

import grp
import os
import pwd
from pathlib import Path

import pytest

from ioasid.service import Credentials, PermissionDenied, Permit, Policy, Role, Rule, read_policy

PEER = Credentials(1000, frozenset({1000, 36}), 1)


def test_the_first_rule_that_matches_holds() -> None:
    """By user or by any group; whoever none names does not come in."""
    driver = Rule(role=Role.DRIVER, groups=frozenset({36}), holders=("vdcm:",))
    tenant = Rule(role=Role.TENANT, users=frozenset({1000}), holders=("kvm:",), tokens=("vm-*",))
    assert Permit(Role.DRIVER, 1000, ("vdcm:",)) == Policy((driver, tenant)).permit(PEER)
    expected = Permit(Role.TENANT, 1000, ("kvm:",), ("vm-*",))
    assert expected == Policy((tenant, driver)).permit(PEER)
    other = Credentials(1001, frozenset({1001}), 1)
    for policy in (Policy((driver, tenant)), Policy(()), Policy.only(1000)):
        with pytest.raises(PermissionDenied, match="user 1001 may not connect"):
            policy.permit(other)
    assert Role.OPERATOR is Policy.only(1000).permit(PEER).role


def test_a_file(tmp_path: Path) -> None:
    """Users and groups are named or numbered."""
    path = tmp_path / "policy"
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    path.write_text(
        f'[[rule]]\nrole = "operator"\nusers = ["{user}", 5]\n'
        f'[[rule]]\nrole = "tenant"\ngroups = ["{group}"]\nholders = ["kvm:"]\ntokens = ["vm-*"]\n'
        'group = "tenants"\n'
    )
    assert (
        Rule(role=Role.OPERATOR, users=frozenset({os.getuid(), 5})),
        Rule(
            role=Role.TENANT,
            groups=frozenset({os.getgid()}),
            holders=("kvm:",),
            tokens=("vm-*",),
            group="tenants",
        ),
    ) == read_policy(path).rules
    path.write_text("")
    assert () == read_policy(path).rules


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is the system's error, with the path."""
    with pytest.raises(FileNotFoundError):
        read_policy(tmp_path / "policy")
