"""The limit of open files: as high as the process may have it, and too low a one is said."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from ioasid.service._descriptors import raise_limit
from tests.service.programs import a_program

FILES = resource.RLIMIT_NOFILE


@pytest.fixture
def hard() -> Iterator[int]:
    """The hard limit; the soft one is lower for the length of a test."""
    _, hard = before = resource.getrlimit(FILES)
    lower = 512 if hard == resource.RLIM_INFINITY else min(512, hard - 1)
    resource.setrlimit(FILES, (lower, hard))
    yield hard
    resource.setrlimit(FILES, before)


def test_the_soft_limit_becomes_the_hard_one(hard: int, caplog: pytest.LogCaptureFixture) -> None:
    """What is enough is not spoken of."""
    assert hard == raise_limit(1) == resource.getrlimit(FILES)[0]
    assert [] == caplog.messages
    # Nothing is left to be raised.
    assert hard == raise_limit(1)


def test_a_limit_that_is_too_low(hard: int, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what the limit is, what is needed, and what to do."""
    raise_limit(hard)
    (message,) = caplog.messages
    assert message.startswith(f"{hard} files may be open, too few for {hard} connections")
    assert f"allow {hard + 64}" in message
    assert "LimitNOFILE=" in message


@pytest.mark.slow
@pytest.mark.usefixtures("hard")
def test_a_service_raises_it(tmp_path: Path) -> None:
    """A service that was started with a low limit has the hard one."""
    with a_program(tmp_path) as program:
        lines = Path(f"/proc/{program.process.pid}/limits").read_text().splitlines()
        (line,) = (each for each in lines if each.startswith("Max open files"))
        soft, hard = line.split()[3:5]
        assert soft == hard
