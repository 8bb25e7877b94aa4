"""How a connection begins: what a Hello comes to."""

import pytest

from ioasid.service import Hello, PermissionDenied, ProtocolViolated, Role
from ioasid.service._greeting import greeted
from tests.service.services import UID, a_permit


def test_who_comes_back() -> None:
    """A client is known by its user, its token and its name; without a name it can't come back."""
    operator = a_permit(Role.OPERATOR)
    assert (None, (UID, None, "me")) == greeted(operator, Hello((1,), "me"))
    assert (None, None) == greeted(operator, Hello((7, 1)))
    clients = []
    for token in ("vm-1", "vm-2"):
        tenancy, client = greeted(operator.narrowed(token, ()), Hello((1,), "me"))
        assert tenancy is not None
        assert token == tenancy.token
        clients.append(client)
    # Who guesses the name of another's client is another client.
    assert [(UID, "vm-1", "me"), (UID, "vm-2", "me")] == clients


@pytest.mark.parametrize("hello", [Hello(()), Hello((2,)), Hello((1,), ""), Hello((1,), "x" * 65)])
def test_a_hello_that_does_not_do(hello: Hello) -> None:
    """Another version, or a client with no name or a long one."""
    with pytest.raises(ProtocolViolated):
        greeted(a_permit(Role.OPERATOR), hello)


@pytest.mark.parametrize(("versions", "said"), [((9, 10), "9, 10"), ((), "none")])
def test_versions_are_named(versions: tuple[int, ...], said: str) -> None:
    """Whoever speaks no version of the server is told what both speak."""
    with pytest.raises(ProtocolViolated, match=f"speaks version 1, the client offers {said};"):
        greeted(a_permit(Role.OPERATOR), Hello(versions))


def test_many_versions() -> None:
    """Of however many that are not spoken here, a few are said."""
    with pytest.raises(ProtocolViolated) as caught:
        greeted(a_permit(Role.OPERATOR), Hello(tuple(range(2, 100_000))))
    assert len(str(caught.value)) < 200


def test_a_tenant_has_one_token() -> None:
    """The only one unless it chooses, and no other than its own."""
    one, many = (a_permit(Role.TENANT, tokens=each) for each in (("vm-1",), ("vm-*", "x")))
    for permit, token, expected in ((one, None, "vm-1"), (many, "vm-7", "vm-7"), (many, "x", "x")):
        tenancy, _ = greeted(permit, Hello((1,), None, token))
        assert tenancy is not None
        assert expected == tenancy.token
    for permit, token, said in (
        (one, "vm-2", "choose the token 'vm-2', which is not among"),
        (many, None, r"connect without a token, only with 'vm-\*' or 'x'"),
        (many, "y", "choose the token 'y'"),
    ):
        with pytest.raises(PermissionDenied, match=said):
            greeted(permit, Hello((1,), None, token))
    # Who is no tenant has none, whatever it says.
    assert (None, None) == greeted(a_permit(Role.DRIVER), Hello((1,), None, "vm-1"))
