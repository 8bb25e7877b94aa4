"""A service as a member of a fleet; two of them, with their commands, are in test_command."""

from pathlib import Path

import anyio
import pytest

from ioasid.actors import open_allocator
from ioasid.core import InvalidArgument
from ioasid.fleet import member
from tests.fleet.stores import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Where the client library runs."""
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: str) -> str:
    """Keep the event loop from one test to the next.

    What gRPC began for a place that is not there may end later, and complains of a loop that is
    closed.
    """
    return anyio_backend


async def test_a_store_that_is_not_there_yet_holds_nobody_up(tmp_path: Path) -> None:
    """The service begins without it; the fleet finds it when the store is back."""
    with anyio.fail_after(30):
        url = f"http://127.0.0.1:{free_port()}"
        async with open_allocator(capacity=8) as allocator, member(url, "a", allocator) as gate:
            assert "a" == gate.name


@pytest.mark.parametrize(("url", "host"), [("nowhere", "a"), ("http://127.0.0.1:1", "a/b")])
async def test_a_place_that_is_none_is_refused(url: str, host: str) -> None:
    """The store is a URL, and the name of a host has no slash."""
    async with open_allocator(capacity=8) as allocator:
        with pytest.raises((InvalidArgument, ExceptionGroup)):
            async with member(url, host, allocator):
                pass
