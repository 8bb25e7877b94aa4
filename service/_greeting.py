"""How a connection begins: what a `Hello` and a `Narrow` come to."""

from typing import Final

from ioasid.service._errors import PermissionDenied, ProtocolViolated
from ioasid.service._frames import VERSION, Hello, Welcome
from ioasid.service._memory import Client
from ioasid.service._permits import Permit, Role
from ioasid.service._shared import Shared
from ioasid.service._tenancy import Tenancy

__all__: list[str] = []

MAX_CLIENT: Final = 64
"""The longest name of a client."""
FEW: Final = 8
"""So many of the versions that a client offers are named in a refusal."""


def greeted(permit: Permit, hello: Hello) -> tuple[Tenancy | None, Client | None]:
    """Return whose connection it is after a `Hello`: a tenant's, and of a client that comes back.

    Raises `ProtocolViolated` for a `Hello` that does not do, `PermissionDenied` for a tenant
    without a token, or with one that the policy does not let it choose.
    """
    if VERSION not in hello.versions:
        few = ", ".join(map(str, hello.versions[:FEW])) or "none"
        offered = f"{few} and more" if len(hello.versions) > FEW else few
        raise ProtocolViolated(f"the server speaks version {VERSION}, the client offers {offered}")
    if hello.client is not None and not 0 < len(hello.client) <= MAX_CLIENT:
        raise ProtocolViolated(f"a client's name has 1 to {MAX_CLIENT} characters")
    token = None if permit.role is not Role.TENANT else _token(permit, hello.token)
    tenancy = None if token is None else Tenancy(permit, token)
    # A tenant that guesses a name of its manager's, or of another tenant, has nothing of it.
    client = None if hello.client is None else (permit.uid, token, hello.client)
    return tenancy, client


def _token(permit: Permit, asked: str | None) -> str:
    if asked is None and len(permit.tokens) == 1 and not permit.tokens[0].endswith("*"):
        return permit.tokens[0]
    if asked is None:
        may = " or ".join(map(repr, permit.tokens))
        raise PermissionDenied(Role.TENANT, f"connect without a token, only with {may}")
    if not permit.allows_token(asked):
        found = f"choose the token {asked[:64]!r}, which is not among the `tokens` of its rule"
        raise PermissionDenied(Role.TENANT, found)
    return asked


def welcome(shared: Shared, permit: Permit, *, resumed: bool) -> Welcome:
    """Return what somebody is welcomed with."""
    limits = shared.limits
    return Welcome(
        VERSION,
        shared.epoch,
        resumed,
        limits.requests,
        limits.waits,
        permit.role,
    )
