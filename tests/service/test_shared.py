"""What all connections of a server share."""

import anyio
import pytest

from ioasid.core import Acknowledge, OpenSession
from ioasid.service import Ask
from tests.service.services import a_raw_client, a_service

pytestmark = pytest.mark.anyio


async def test_what_is_counted_is_counted_for_all() -> None:
    """Every connection counts into the same account, and learns of the same epoch."""
    async with a_service() as service:
        epochs = set()
        for number in range(3):
            async with a_raw_client(service.path) as client:
                epochs.add((await client.hello()).epoch)
                await client.ask(Ask(OpenSession(f"vm-{number}"), 1))
                await client.send(Ask(Acknowledge(()), 2, 99))
                await client.receive()
        with anyio.fail_after(10):
            while service.server.statistics().connections:
                await anyio.lowlevel.checkpoint()
        figures = service.server.statistics()
        assert 1 == len(epochs)
        assert (3, {"SessionEnded": 3}) == (figures.accepted, figures.refusals)
        assert {"OpenSession": 3} == figures.asks.by_request
        assert 3 == sum(count for _, count in figures.asks.took)
