"""What one connection may do: the permission table, by role.

Deny by default. An *operator* may do everything. A *driver* may use any set, under holder names of
its prefixes, and neither create, size nor evict. A *tenant* has one token: every other set, ID,
holder and event does not exist for it; it creates and sizes its set only in a group that the policy
gives it. What it may ask is in `_tenancy`.
"""

from enum import StrEnum
from typing import Any, Final

from attrs import frozen

from ioasid.core import (
    ActivateSet,
    AdjustGroup,
    AdjustSet,
    AllocGroup,
    AllocSet,
    AllocSystemSet,
    CancelCapacity,
    CancelRange,
    Evict,
    ExportSet,
    FreeGroup,
    FreezeSet,
    ImportSet,
    InstallCapacity,
    Request,
    ReserveCapacity,
    ReserveRange,
    TakeSnapshot,
    ThawSet,
)
from ioasid.service._errors import PermissionDenied

__all__ = ["Permit", "Role"]


class Role(StrEnum):
    """What somebody is to the service."""

    OPERATOR = "operator"
    """Everything, evicting included."""
    DRIVER = "driver"
    """Any set, under holder names of its prefixes."""
    TENANT = "tenant"
    """One token, and what is in its set."""


OPERATORS_ONLY: Final[frozenset[type]] = frozenset(
    (
        *(InstallCapacity, ReserveCapacity, CancelCapacity, ReserveRange, CancelRange),
        *(AllocGroup, AdjustGroup, FreeGroup),
        *(AllocSystemSet, AllocSet, AdjustSet),
        *(FreezeSet, ThawSet, ExportSet, ImportSet, ActivateSet),
        *(Evict, TakeSnapshot),
    )
)
"""What would be a false death, a theft of quota, a VM on two hosts, or a look at everything."""
OF_A_GROUP: Final[frozenset[type]] = frozenset((AllocSet, AdjustSet))
"""What a tenant with a group may ask about its set in it; which set that is, `_tenancy` decides."""


@frozen
class Permit:
    """What one connection may do; `uid` is whom the kernel says it belongs to."""

    role: Role
    uid: int
    holders: tuple[str, ...] = ()
    """Prefixes of the holder names that it may have; an operator may have any."""
    tokens: tuple[str, ...] = ()
    """A tenant's: the token that it may choose; one that ends with `*` stands for many."""
    group: str | None = None
    """A tenant's: the group in which it may create the set of its token."""

    def check_name(self, name: Any) -> None:
        """Raise `PermissionDenied` for a holder name that is not its own."""
        if self.role is Role.OPERATOR or not isinstance(name, str):
            # What is no name is left to the allocator to refuse.
            return
        if not name.startswith(self.holders or (name + "?",)):
            begins = " or ".join(map(repr, self.holders))
            only = f", only one that begins with {begins}" if begins else ""
            raise PermissionDenied(self.role, f"be the holder {name[:64]!r}{only}")

    @property
    def denied(self) -> frozenset[type]:
        """The kinds of requests that it does not include, whatever they are about."""
        if self.role is Role.TENANT and self.group is not None:
            return OPERATORS_ONLY - OF_A_GROUP
        return frozenset() if self.role is Role.OPERATOR else OPERATORS_ONLY

    def check(self, request: Request) -> None:
        """Raise `PermissionDenied` for a request that the role does not include."""
        if type(request) in self.denied:
            if self.role is Role.TENANT and type(request) in OF_A_GROUP:
                what = f"create or size its set ({type(request).__name__}) without a `group`"
                raise PermissionDenied(self.role, f"{what} in its rule")
            raise PermissionDenied(self.role, f"send {type(request).__name__}")

    def allows_token(self, token: str) -> bool:
        """Tell whether a tenant may choose this token."""
        return any(
            token.startswith(each[:-1]) if each.endswith("*") else token == each
            for each in self.tokens
        )

    def narrowed(self, token: str, holders: tuple[str, ...]) -> "Permit":
        """Return what is left when it is narrowed to one token, for good.

        Raises `PermissionDenied` for more than it has: a tenant can't narrow, for it is narrow.
        """
        if self.role is Role.TENANT:
            raise PermissionDenied(self.role, "narrow a connection")
        for each in holders:
            self.check_name(each)
        return Permit(Role.TENANT, self.uid, holders, (token,))
