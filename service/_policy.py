"""The policy: which users have which role, from one file; without it, one user has all.

The file is TOML, one table `[[rule]]` after the other. The first whose users or groups match says
what a connection may do; whoever none matches does not come in.
"""

import grp
import pwd
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from ioasid.service._credentials import Credentials
from ioasid.service._errors import PermissionDenied
from ioasid.service._permits import Permit, Role
from ioasid.service._settings import TEXT, Settings, is_text, read_settings, written

__all__ = ["Policy", "Rule", "read_policy"]

KEYS: Final = ("role", "users", "groups", "holders", "tokens", "group")
WITH: Final = {
    "holders": (Role.DRIVER, Role.TENANT),
    "tokens": (Role.TENANT,),
    "group": (Role.TENANT,),
}
"""Which roles have use for a key."""


@frozen(kw_only=True)
class Rule:
    """One rule: whoever is one of `users` (uids) or in one of `groups` (gids) has the `role`.

    `holders` are prefixes of the holder names that a driver or tenant may have; `tokens` those of a
    tenant, one of which it chooses in its `Hello` (`*` at the end stands for anything); `group` is
    the group of IOASIDs in which a tenant may create the set of its token.
    """

    role: Role
    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    holders: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    group: str | None = None

    def matches(self, peer: Credentials) -> bool:
        """Tell whether it is about who connected."""
        return peer.uid in self.users or not self.groups.isdisjoint(peer.gids)


@frozen
class Policy:
    """The rules, in order."""

    rules: tuple[Rule, ...]

    @classmethod
    def only(cls, uid: int) -> "Policy":
        """Return the policy by which one user may do everything, and nobody else comes in."""
        return cls((Rule(role=Role.OPERATOR, users=frozenset({uid})),))

    def permit(self, peer: Credentials) -> Permit:
        """Return what who connected may do. Raises `PermissionDenied` for whoever no rule names."""
        for rule in self.rules:
            if rule.matches(peer):
                return Permit(rule.role, peer.uid, rule.holders, rule.tokens, rule.group)
        raise PermissionDenied(f"user {peer.uid}", "connect")


def read_policy(path: str | Path) -> Policy:
    """Read a policy file.

    Raises OSError if it can't be read, and `WrongSetting` for what is wrong in it: a key that there
    is not, a user or group that is unknown, a role without what it needs.
    """
    file = read_settings(path)
    for key in file.found:
        if key != "rule":
            file.refuse_key(key, ("rule",), "tables [[rule]] and nothing else")
    rules = file.found.get("rule", [])
    if isinstance(rules, dict):
        file.refuse("rule", "one table, [rule]", "[[rule]], in two brackets, for there may be more")
    if not isinstance(rules, list) or not all(isinstance(each, dict) for each in rules):
        file.wrong("rule", rules, "tables, each below a line [[rule]]")
    return Policy(
        tuple(
            _rule(Settings(file.file, each, f"{{}} in rule {place}"))
            for place, each in enumerate(rules, 1)
        )
    )


def _rule(given: Settings) -> Rule:
    given.refuse_unknown(KEYS)
    roles = ", ".join(f'"{each}"' for each in Role)
    if "role" not in given.found:
        given.refuse("role", "missing", f"one of {roles}")
    given.check("role", lambda value: value in list(Role), f"one of {roles}")
    role = Role(given.found["role"])
    users = frozenset(_user(each, given) for each in given.list_of("users", '["root", 1000]'))
    groups = frozenset(_group(each, given) for each in given.list_of("groups", '["kvm", 36]'))
    holders = _texts(given, "holders", '["kvm:"]')
    tokens = _texts(given, "tokens", '["vm-*"]')
    given.check("group", is_text, f"{TEXT}, the name of a group of sets")
    if not users and not groups:
        given.refuse("users", "missing, as is groups", "one of them, or leave the rule out")
    if role is Role.TENANT and not tokens:
        given.refuse("tokens", "missing", 'those of a tenant, such as ["vm-*"]')
    if role is not Role.OPERATOR and not holders:
        expected = f'what the holder names of a {role} begin with, such as ["kvm:"]'
        given.refuse("holders", "missing", expected)
    for key, roles_with_it in WITH.items():
        if role not in roles_with_it and given.found.get(key):
            expected = f"it for a {' or '.join(roles_with_it)} only"
            given.refuse(key, f"of no use to the role {role}", expected)
    group = given.found.get("group")
    return Rule(role=role, users=users, groups=groups, holders=holders, tokens=tokens, group=group)


def _texts(given: Settings, key: str, example: str) -> tuple[str, ...]:
    found = given.list_of(key, example)
    for each in found:
        if not is_text(each):
            given.refuse(key, f"a list with {written(each)}", f"{TEXT} each, such as {example}")
    return tuple(found)


def _user(value: Any, given: Settings) -> int:
    if isinstance(value, str):
        try:
            return pwd.getpwnam(value).pw_uid
        except (KeyError, ValueError):
            pass
    return _number(value, "users", "user", given)


def _group(value: Any, given: Settings) -> int:
    if isinstance(value, str):
        try:
            return grp.getgrnam(value).gr_gid
        except (KeyError, ValueError):
            pass
    return _number(value, "groups", "group", given)


def _number(value: Any, key: str, kind: str, given: Settings) -> int:
    if type(value) is int and 0 <= value < 2**32:
        return value
    expected = f"the name of a {kind} that this machine has, or a number in 0..2^32-1"
    return given.refuse(key, f"a list with {written(value)}", expected)
