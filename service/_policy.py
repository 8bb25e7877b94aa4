"""The policy: which users have which role, from one file; without it, one user has all.

The file is TOML, one table `[[rule]]` after the other. The first whose users or groups match says
what a connection may do; whoever none matches does not come in.
"""

import grp
import pwd
import tomllib
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from ioasid.core import InvalidArgument
from ioasid.service._credentials import Credentials
from ioasid.service._errors import PermissionDenied
from ioasid.service._permits import Permit, Role

__all__ = ["Policy", "Rule", "read_policy"]

FIELDS: Final = frozenset(("role", "users", "groups", "holders", "tokens", "group"))


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

    Raises OSError if it can't be read, and `InvalidArgument` that names the rule for what is wrong
    in it: a field that there is not, a user or group that is unknown, a role without what it needs.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument("policy", str(error), f"TOML in {path}") from None
    rules = found.pop("rule", [])
    if found or not isinstance(rules, list):
        names = ", ".join(sorted(found)) or "rule"
        raise InvalidArgument("policy", names, "tables [[rule]] and nothing else")
    return Policy(tuple(_rule(each, f"rule {place}") for place, each in enumerate(rules, 1)))


def _rule(found: Any, place: str) -> Rule:
    if not isinstance(found, dict) or (unknown := found.keys() - FIELDS):
        names = ", ".join(sorted(unknown)) if isinstance(found, dict) else str(found)[:60]
        raise InvalidArgument(place, names, f"a table of {', '.join(sorted(FIELDS))}")
    try:
        role = Role(str(found.get("role")))
    except ValueError:
        raise InvalidArgument.of(f"role of {place}", found.get("role"), _either(Role)) from None
    users = frozenset(_number(each, "users", place) for each in _list(found, "users", place))
    groups = frozenset(_number(each, "groups", place) for each in _list(found, "groups", place))
    holders = tuple(_text(each, "holders", place) for each in _list(found, "holders", place))
    tokens = tuple(_text(each, "tokens", place) for each in _list(found, "tokens", place))
    group = None if "group" not in found else _text(found["group"], "group", place)
    if not users and not groups:
        raise InvalidArgument(place, "no users and no groups", "some of either, or leave it out")
    needs = {"tokens": tokens, "holders": holders}
    missing = [each for each, value in needs.items() if not value]
    if role is Role.TENANT and missing:
        raise InvalidArgument(place, f"a tenant without {missing[0]}", "both tokens and holders")
    if role is Role.DRIVER and not holders:
        raise InvalidArgument(place, "a driver without holders", "prefixes of its holder names")
    if role is not Role.TENANT and (tokens or group):
        raise InvalidArgument(place, f"tokens or group of a {role}", "them for tenants only")
    return Rule(role=role, users=users, groups=groups, holders=holders, tokens=tokens, group=group)


def _either(choices: type[Role]) -> str:
    return " or ".join(f'"{each}"' for each in choices)


def _list(found: dict[str, Any], name: str, place: str) -> list[Any]:
    value = found.get(name, [])
    if not isinstance(value, list):
        raise InvalidArgument.of(f"{name} of {place}", value, "a list")
    return value


def _text(value: Any, name: str, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidArgument.of(f"{name} of {place}", value, "text that is not empty")
    return value


def _number(value: Any, name: str, place: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return value
    if isinstance(value, str):
        try:
            return pwd.getpwnam(value).pw_uid if name == "users" else grp.getgrnam(value).gr_gid
        except (KeyError, ValueError):
            pass
    raise InvalidArgument.of(f"{name} of {place}", value, "a number, or a name that there is")
