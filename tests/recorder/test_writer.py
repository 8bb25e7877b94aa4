"""Writing: what is in the file, and when, whatever happens to the program."""

import logging
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from ioasid.actors import Actor, Decision, Step, open_allocator, open_host
from ioasid.core import Allocator, Done, InvalidArgument, Message, TakeSnapshot
from ioasid.recorder import Decided, Noted, Opened, Stepped, TornRecording, read, record

pytestmark = pytest.mark.anyio


async def test_every_decision_and_step_is_a_line(tmp_path: Path) -> None:
    """The file has what a tap saw, in the same order, each as a line."""
    seen: list[Decision | Step] = []
    path = tmp_path / "host.jsonl"
    with record(path):
        async with open_host(capacity=64, system_quota=8, taps=[seen.append]) as host:
            await host.add_device("dsa0")
            vm = await host.start_vm("vm-1", quota=4)
            await vm.bind("dsa0", await vm.alloc(), 101)
            await vm.close()
            await host.remove_device("dsa0")
            told = list(seen)
    lines = read(path).lines
    assert isinstance(lines[0], Opened)
    begun = lines[0].snapshot.now
    assert Allocator(64, now=begun).snapshot() == lines[0].snapshot
    assert told == [_as_told(each, told) for each, told in zip(lines[1:], told, strict=False)]
    times = [each.time for each in lines[1:] if not isinstance(each, Opened)]
    assert sorted(times) == times
    assert begun <= times[0]


def _as_told(line: object, told: Decision | Step) -> object:
    match line:
        case Decided():
            fields = {name: getattr(line, name) for name in Decision.__struct_fields__}
            return Decision(**fields)
        case Stepped(_, actor, message) if isinstance(told, Step):
            return Step(actor, msgspec.convert(message, type(told.message)))
        case _:
            return line


async def test_a_line_is_there_before_anything_of_its_decision_leaves(tmp_path: Path) -> None:
    """Whoever has an answer finds its decision in the file."""
    path = tmp_path / "alloc.jsonl"
    with record(path):
        async with open_allocator(capacity=64) as host:
            vm = await host.alloc_set("vm-1", 4)
            for _ in range(3):
                ioasid = await host.alloc(vm.sid)
                last = read(path).lines[-1]
                assert isinstance(last, Decided)
                assert ioasid == getattr(last.answer, "ioasid", None)


async def test_only_what_was_opened_inside(tmp_path: Path) -> None:
    """An allocator opened before is not recorded, and one that outlives the block until its end."""
    path = tmp_path / "some.jsonl"
    async with open_allocator(capacity=64) as before:
        with record(path):
            await before.alloc_set("vm-1", 4)
            inside = open_allocator(capacity=32)
            host = await inside.__aenter__()
            await host.alloc_set("vm-2", 4)
        await host.alloc_set("vm-3", 4)
        await inside.__aexit__(None, None, None)
    requests = [each.request for each in read(path).lines if isinstance(each, Decided)]
    assert ["vm-2"] == [getattr(each, "token", None) for each in requests]


async def test_the_next_allocator(tmp_path: Path) -> None:
    """One that goes on from a snapshot begins with that state, under the next number."""
    path = tmp_path / "two.jsonl"
    with record(path):
        async with open_allocator(capacity=64) as host:
            vm = await host.alloc_set("vm-1", 4)
            snapshot = await host.snapshot()
        async with open_allocator(snapshot=snapshot) as host:
            await host.alloc(vm.sid)
    lines = read(path).lines
    assert [(0, None), (1, snapshot)] == [
        (each.allocator, each.snapshot if each.allocator else None)
        for each in lines
        if isinstance(each, Opened)
    ]
    decided = [each for each in lines if isinstance(each, Decided)]
    assert [0, 0, 1, 1, 1] == [each.allocator for each in decided]
    # The state is in the file already, where an allocator begins.
    assert (TakeSnapshot(), Done()) == (decided[1].request, decided[1].answer)


class Odd(Message, frozen=True, gc=True):
    """A message that an actor made up."""

    value: Any


async def test_a_message_with_anything_in_it(tmp_path: Path) -> None:
    """A step is recorded whatever its message has: as text, or by its name alone."""
    endless: list[Any] = []
    endless.append(endless)
    values = [3, "text", 1j, object, {1.5: 2}, {(1, 2): 3}, float("nan"), endless]
    path = tmp_path / "odd.jsonl"
    with record(path):
        actor = Actor("odd")
        async with open_allocator(capacity=64) as host, anyio.create_task_group() as tasks:
            await tasks.start(actor.run, host)
            for value in values:
                actor.report(Odd(value))
            actor.stop()
    steps = [each for each in read(path).lines if isinstance(each, Stepped)]
    assert ["Odd"] * len(values) == [each.message["type"] for each in steps]
    assert [3, "text", "1j"] == [each.message["value"] for each in steps[:3]]


async def test_notes(tmp_path: Path) -> None:
    """A note is a line at its place; what is no text, or too long, is refused and not written."""
    path = tmp_path / "notes.jsonl"
    with record(path) as recorder:
        recorder.note("before")
        async with open_allocator(capacity=64) as host:
            await host.alloc_set("vm-1", 4)
            recorder.note("a set")
            bad: Any
            for bad in ("", "x" * 201, 5, None, b"x"):
                with pytest.raises(InvalidArgument, match="text"):
                    recorder.note(bad)
    assert [Noted, Opened, Decided, Noted] == [type(each) for each in read(path).lines]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
async def test_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    """It ends the recording, which is logged once, and the allocator begins and goes on."""
    with caplog.at_level(logging.ERROR, "ioasid"), record("/dev/full"):
        async with open_allocator(capacity=64) as host:
            vm = await host.alloc_set("vm-1", 4)
            assert 1 == await host.alloc(vm.sid)
    assert ["the recording of allocators ends before it began"] == caplog.messages


async def test_a_disk_that_fails_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing more is written, it is logged once, and the allocator and its actors go on."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "short.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with caplog.at_level(logging.ERROR, "ioasid"), record(path):
            async with open_allocator(capacity=64) as host:
                vm = await host.alloc_set("vm-1", 64 - 1)
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
                ids = [await host.alloc(vm.sid) for _ in range(8)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(range(1, 9)) == ids
    assert 1 == sum("sees nothing any more" in each.message for each in caplog.records)
    assert 2000 == path.stat().st_size
    with warnings.catch_warnings():
        # It is torn, unless it ends where a line does.
        warnings.simplefilter("ignore", TornRecording)
        assert 1 < len(read(path).lines) < 9


@pytest.mark.slow
def test_a_program_that_is_killed(tmp_path: Path) -> None:
    """What was answered before is in the file, though nothing was closed."""
    path = tmp_path / "killed.jsonl"
    program = (
        "import anyio, os, signal, sys\n"
        "from ioasid.actors import open_allocator\n"
        "from ioasid.recorder import record\n"
        "async def main():\n"
        "    with record(sys.argv[1]):\n"
        "        async with open_allocator(capacity=64) as host:\n"
        "            vm = await host.alloc_set('vm-1', 8)\n"
        "            for _ in range(5):\n"
        "                await host.alloc(vm.sid)\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "anyio.run(main)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert -signal.SIGKILL == ended.returncode
    assert 6 == sum(isinstance(each, Decided) for each in read(path).lines)


def test_nowhere_to_write(tmp_path: Path) -> None:
    """A file that cannot be made is an error before anything begins."""
    with pytest.raises(FileNotFoundError), record(tmp_path / "no" / "where.jsonl"):
        raise AssertionError("not reached")
