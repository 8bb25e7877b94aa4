"""What the allocator's mailbox holds."""

import pytest

from ioasid.actors._envelope import Envelope
from ioasid.core import Alloc, Subscribe


def test_an_envelope_says_who_asks_what() -> None:
    """It has the session and the request, and only for a subscriber an outlet."""
    envelope = Envelope(7, Alloc(0), None)
    assert (7, Alloc(0), None, None) == (
        envelope.session,
        envelope.request,
        envelope.reply,
        envelope.outlet,
    )


def test_an_envelope_is_not_changed() -> None:
    """What is on its way stays as it was sent."""
    envelope = Envelope(7, Subscribe(), None)
    with pytest.raises(AttributeError):
        envelope.session = 0  # type: ignore[misc]
