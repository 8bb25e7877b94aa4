"""What a client asks for, and whose it is."""

from ioasid.core import Alloc
from ioasid.service._asking import Asking, Holder, Unnamed


def test_a_session_that_nobody_has() -> None:
    """It has one number, by which it is only closed."""
    nobody: Holder = Unnamed(5)
    assert (5, 5) == (nobody.session, nobody.current)


def test_a_request_is_no_other() -> None:
    """Two that look alike are two, and begin as not sent."""
    one, two = (Asking(1, None, Alloc(0), None) for _ in range(2))
    assert one != two
    assert (False, False, False) == (one.sent, one.written, one.again)
