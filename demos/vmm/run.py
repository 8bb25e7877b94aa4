"""Three VMMs share a device: each is a process of its own, one of them in C, and one is killed.

The service owns the allocator. An agent has the device and the IOMMU, and each VMM has one guest.
They reach the service over a socket, two VMMs in Python and the third, in C, by the protocol's page
alone. vm-2 is killed in the middle of DMA; then another VMM asks for a PASID.
"""

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Final

import anyio
from anyio.abc import Process, TaskGroup
from anyio.streams.text import TextReceiveStream

HERE: Final = Path(__file__).resolve().parent
WIDTH: Final = 80
LONGEST: Final = 60.0
"""Seconds that one step may take on a slow machine."""


class Failed(Exception):
    """The demo could not go on."""


class Program:
    """A process of the demo, and the lines that it said."""

    def __init__(self, name: str, process: Process, show: Callable[[str], None]) -> None:
        self.name = name
        self.said: list[str] = []
        self._show = show
        self._process = process
        self._changed = anyio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def listen(self) -> None:
        """Show what it says, line by line."""
        assert self._process.stdout is not None
        rest = ""
        async for text in TextReceiveStream(self._process.stdout):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                if line != "ready":
                    self._show(f"  {self.name:<7} {line}")
                self.said.append(line)
            self._wake()
        self.said.append("")
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, *lines: str) -> None:
        """Wait until it has said some lines."""
        with anyio.fail_after(LONGEST):
            while not set(lines) <= set(self.said):
                if "" in self.said:
                    raise Failed(f"{self.name} ended before it said {' and '.join(lines)}")
                await self._changed.wait()

    async def tell(self, word: str) -> None:
        """Say a word to it."""
        assert self._process.stdin is not None
        await self._process.stdin.send(f"{word}\n".encode())

    async def end(self) -> int:
        """Close its input, which tells it to end, and wait until it has."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        return await self.ended()

    async def terminate(self) -> int:
        """Ask it to end as a service manager does, and wait until it has."""
        self._process.terminate()
        return await self.ended()

    async def kill(self) -> None:
        """Kill it: it has no warning."""
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def ended(self) -> int:
        """Wait until it has ended."""
        with anyio.fail_after(LONGEST):
            return await self._process.wait()


class Stage:
    """Where the programs run."""

    def __init__(self, folder: Path, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        self._stack = stack
        self._tasks = tasks
        self.socket = folder / "ioasid.sock"
        self.holds = True
        self._kept: list[str] | None = None

    def show(self, line: str) -> None:
        """Show a line, or keep it until what is asked is answered."""
        if self._kept is None:
            print(line, flush=True)
        else:
            self._kept.append(line)

    async def start(self, name: str, *command: str | Path) -> Program:
        """Start a program."""
        process = await self._stack.enter_async_context(running([str(each) for each in command]))
        program = Program(name, process, self.show)
        self._tasks.start_soon(program.listen)
        return program

    async def ask(self, *words: str) -> str:
        """Call the command line, and show what it answers."""
        self.show(f"  $ ioasid {' '.join(words)}")
        kept: list[str] = []
        self._kept = kept
        command = [sys.executable, "-m", "ioasid", "--socket", str(self.socket), *words]
        done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
        text = done.stdout.decode().strip()
        self._kept = None
        for line in text.splitlines():
            self.show(fill(line, WIDTH, initial_indent="  ", subsequent_indent="  "))
        for line in kept:
            self.show(line)
        if done.returncode:
            raise Failed(f"ioasid {words[0]} ended with {done.returncode}")
        return text

    async def until(self, text: str, *words: str) -> None:
        """Wait until a command says something."""
        command = [sys.executable, "-m", "ioasid", "--socket", str(self.socket), *words]
        with anyio.fail_after(LONGEST):
            said = b""
            while text not in said.decode():
                done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
                said = done.stdout

    def claim(self, text: str, true: bool) -> None:
        """Say what has to be true, and whether it is."""
        self.holds = self.holds and true
        print(fill(f"{'✓' if true else '✗ NOT SO:'} {text}", WIDTH, subsequent_indent="  "))


@asynccontextmanager
async def running(command: list[str]) -> AsyncIterator[Process]:
    # They end by being told to; one that is left, for something failed, is killed.
    process = await anyio.open_process(command, stderr=None, cwd=HERE)
    async with process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


def part(text: str) -> None:
    """Begin a part of the story."""
    print(f"\n{fill(text, WIDTH)}", flush=True)


async def tell(folder: Path, compiler: str | None) -> bool:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        stage = Stage(folder, stack, tasks)
        python, path = sys.executable, stage.socket

        part("A service, an agent with a device and the IOMMU, and three VMMs begin.")
        config = folder / "config.toml"
        config.write_text(f'socket = "{path}"\norder = "LOWEST"\nlog = "ERROR"\n')
        service = await stage.start("service", python, "-m", "ioasid", "serve", "-c", config)
        await stage.until("capacity", "status")
        agent = await stage.start("agent", python, HERE / "agent.py", path)
        await agent.until("ready")
        vm1 = await stage.start("vm-1", python, HERE / "vmm.py", path, "vm-1")
        vm2 = await stage.start("vm-2", python, HERE / "vmm.py", path, "vm-2")
        third: list[str | Path] = [python, HERE / "vmm.py"]
        if compiler is None:
            print("  (no C compiler here: vm-3 is one in Python, too)")
        else:
            third = [build(compiler, folder)]
        vm3 = await stage.start("vm-3", *third, path, "vm-3")

        part("Each takes a PASID for its guest, who calls it 101; the device works for all three.")
        for number, vm in enumerate((vm1, vm2, vm3), 1):
            await vm.until("ready")
            await vm.tell("alloc")
            await vm.until(f"maps the guest's 101 to {number}")
            started = f"dsa0: DMA with {number} starts, for guest's 101 of {vm.name}"
            await agent.until(started)

        part("vm-2 is killed, with its DMA in flight, and its manager frees what it had.")
        await vm2.kill()
        await stage.until("suspended", "holders")
        await stage.ask("free-set", "vm-2", "--yes")
        why = await stage.ask("why", "2")
        await vm3.tell("alloc")
        await vm3.until("maps the guest's 102 to 4")
        await agent.until("dsa0: DMA with 4 starts, for guest's 102 of vm-3")

        part("Its manager knows that the process is gone, and none of its CPUs can submit.")
        await stage.ask("evict", "kvm:vm-2", "--yes")
        await agent.until("iommu: entry of 2 gone, flushed; done with it")
        await stage.until("2 is not allocated", "why", "2")
        await vm1.tell("alloc")
        await vm1.until("maps the guest's 102 to 2")
        await agent.until("dsa0: DMA with 2 starts, for guest's 102 of vm-1")

        part("The others end in order.")
        codes = []
        for vm in (vm1, vm3):
            await vm.tell("stop")
            codes.append(await vm.ended())
        left = await stage.ask("holders")
        codes += [await agent.end(), await service.terminate()]

        print()
        stage.claim("vm-2's PASID 2 waited for kvm:vm-2, by name", "kvm:vm-2 is down" in why)
        got = "maps the guest's 102 to 4" in vm3.said
        stage.claim("vm-3, asking meanwhile, got 4 and not 2", got)
        landed = "dsa0: it lands in the memory of vm-2; done with 2" in agent.said
        wrong = any("WRONG" in line for line in agent.said)
        stage.claim("the DMA in flight landed in the memory of vm-2", landed and not wrong)
        got = "maps the guest's 102 to 2" in vm1.said
        stage.claim("only then was 2 handed out again, to vm-1", got)
        gone = codes == [0, 0, 0, 0] and "kvm" not in left
        stage.claim("the others gave everything back and left", gone)
    return stage.holds


def build(compiler: str, folder: Path) -> Path:
    """Build the VMM in C."""
    program = folder / "vmm"
    flags = ["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-O1"]
    print("  $ cc vmm.c -o vmm", flush=True)
    subprocess.run([compiler, *flags, HERE / "vmm.c", "-o", program], check=True)
    return program


def main(arguments: Sequence[str] | None = None) -> int:
    description = __doc__ or ""
    parser = argparse.ArgumentParser(description=description.split("\n", 1)[0])
    parser.add_argument(
        "--cc",
        default=shutil.which("cc") or shutil.which("gcc") or "",
        help="the C compiler; empty for none",
    )
    options = parser.parse_args(arguments)
    paragraphs = description.strip().split("\n\n")
    print("\n\n".join(fill(each.replace("\n", " "), WIDTH) for each in paragraphs))
    with TemporaryDirectory(prefix="ioasid-vmm-") as folder:
        holds = False
        try:
            holds = anyio.run(tell, Path(folder), options.cc or None)
        except* Failed as group:
            print(f"\nIt could not go on: {group.exceptions[0]}")
    print("\nEvery claim holds." if holds else "\nThe story does not hold.", flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
