"""Blocking calls: in a thread, one at a time, and always to their end."""

import asyncio
import threading

import anyio
import pytest

from ioasid.linux._run import in_a_thread

pytestmark = pytest.mark.anyio


class Blocking:
    """A call that blocks until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.done: list[str] = []

    def __call__(self) -> str:
        """Block, then be done."""
        self.begun.set()
        assert self.go.wait(10)
        self.done.append("slow")
        return "slow"

    async def wait_begun(self) -> None:
        """Wait until the call blocks."""
        await anyio.to_thread.run_sync(self.begun.wait, 10)


async def test_it_returns_and_raises_what_the_call_does() -> None:
    """The call runs in another thread; its answer and its error come back."""
    run = in_a_thread()
    assert threading.get_ident() != await run(threading.get_ident)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(fail)


async def test_what_has_begun_is_finished() -> None:
    """Who is cancelled meanwhile still waits for the end; what has not begun does not begin."""
    run = in_a_thread()
    call = Blocking()
    answers: list[str] = []

    async def ask(text: str | None) -> None:
        answers.append(await run(call if text is None else lambda: str(text)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, None)
        await call.wait_begun()
        tasks.start_soon(ask, "second")
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
        call.go.set()
    assert (["slow"], ["slow"]) == (call.done, answers)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_calls_never_overlap() -> None:
    """What asyncio itself cancels leaves its call under way, and the next one waits for it."""
    run = in_a_thread()
    call = Blocking()
    task = asyncio.ensure_future(run(call))
    await call.wait_begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    following = asyncio.ensure_future(run(lambda: call.done.append("next")))
    await asyncio.sleep(0)
    call.go.set()
    await following
    assert ["slow", "next"] == call.done
