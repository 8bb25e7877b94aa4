"""Policies: which rule holds for whom, and what is wrong in a file, by name."""

import grp
import os
import pwd
from pathlib import Path

import pytest

from ioasid.core import InvalidArgument
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


TENANT = 'role = "tenant"\nusers = [1]\n'

BAD = {
    "no TOML": "[[rule",
    "another table": "[rules]\n",
    "a rule that is no table": "rule = [5]\n",
    "an unknown field": '[[rule]]\nrole = "operator"\nusers = [1]\nuid = 5\n',
    "no role": "[[rule]]\nusers = [1]\n",
    "an unknown role": '[[rule]]\nrole = "root"\nusers = [1]\n',
    "nobody": '[[rule]]\nrole = "operator"\n',
    "an unknown user": '[[rule]]\nrole = "operator"\nusers = ["no such user"]\n',
    "an unknown group": '[[rule]]\nrole = "operator"\ngroups = ["no such group"]\n',
    "a user that is no number": '[[rule]]\nrole = "operator"\nusers = [true]\n',
    "a negative user": '[[rule]]\nrole = "operator"\nusers = [-1]\n',
    "users that are no list": '[[rule]]\nrole = "operator"\nusers = 5\n',
    "a driver without names": '[[rule]]\nrole = "driver"\nusers = [1]\n',
    "an empty prefix": '[[rule]]\nrole = "driver"\nusers = [1]\nholders = [""]\n',
    "a tenant without tokens": f'[[rule]]\n{TENANT}holders = ["kvm:"]\n',
    "a tenant without names": f'[[rule]]\n{TENANT}tokens = ["vm-1"]\n',
    "tokens of an operator": '[[rule]]\nrole = "operator"\nusers = [1]\ntokens = ["x"]\n',
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_good(name: str, tmp_path: Path) -> None:
    """It is refused, and says which rule it is."""
    path = tmp_path / "policy"
    path.write_text(BAD[name])
    with pytest.raises(InvalidArgument, match=r"rule|policy"):
        read_policy(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is the system's error, with the path."""
    with pytest.raises(FileNotFoundError):
        read_policy(tmp_path / "policy")
