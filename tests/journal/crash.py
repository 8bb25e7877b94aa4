"""Kill an agent at random, start it again on the same journal, and look for what it forgot.

`make crash` runs it large. The agent (`tests.journal.agent`) is a process of its own, killed with
SIGKILL: at a random moment, or by itself in the middle of a write, sync or truncation, in recovery,
between two checkpoints or in one. What it was answered, and what its hardware was told, is known
here, and has to be in what the next agent recovers:

- every request that was answered, and none that was neither answered nor under way;
- every life that the hardware has programmed, and none that it was told the end of;
- no ID for another life while the hardware, or a holder's reference, has it;
- everybody who holds something, suspended.
"""

import argparse
import gc
import os
import random
import select
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

import trio
import uvloop
from attrs import define, evolve, field
from msgspec.json import decode

from tests.journal.agent import CLIENTS, DEVICE, PLANTS, Orders
from tests.journal.agent import run as run_agent

PATIENCE: Final = 60.0
"""Seconds after which an agent hangs."""
LOADED: Final = (trio, uvloop)
"""Once here, and not in every agent."""


class Violation(Exception):
    """Something was forgotten, or made up."""


@define(frozen=True)
class Life:
    """An ID of a client."""

    generation: int
    is_active: bool = True
    spid: int | None = None
    references: int = 0
    is_doomed: bool = False
    """Whether it may be freed, for that was asked before a kill, and is done in parts."""


Lives = dict[int, Life]


@define
class Client:
    """What a client knows of its set: what was answered, and what it asked last."""

    name: str
    has_set: bool = False
    lives: Lives = field(factory=dict)
    asked: list[Any] | None = None

    def after(self, answer: Any) -> Lives:
        """Return the lives when what was asked is carried out."""
        assert self.asked is not None
        lives = dict(self.lives)
        match self.asked:
            case ["alloc", _]:
                for ioasid, generation in answer:
                    old = lives.get(ioasid)
                    is_had = old is not None and old.is_active and not old.is_doomed
                    if is_had or (old is not None and old.references):
                        raise Violation(f"{self.name} has IOASID {ioasid} and is given it again")
                    lives[ioasid] = Life(generation)
            case ["get", ioasid]:
                lives[ioasid] = evolve(lives[ioasid], references=lives[ioasid].references + 1)
            case ["put", ioasid]:
                lives[ioasid] = evolve(lives[ioasid], references=lives[ioasid].references - 1)
            case ["attach_spid", ioasid, spid]:
                lives[ioasid] = evolve(lives[ioasid], spid=spid)
            case ["free", ioasid]:
                lives[ioasid] = evolve(lives[ioasid], is_active=False, spid=None)
            case ["empty"]:
                for ioasid, life in lives.items():
                    lives[ioasid] = evolve(life, is_active=False, spid=None)
            case ["leave"]:
                lives = {ioasid: evolve(life, references=0) for ioasid, life in lives.items()}
            case _:
                assert self.asked == ["alloc_set"], self.asked
        return lives

    def recover(self, found: Lives, *, has_set: bool) -> None:
        """Compare with what an agent recovered, and go on from there."""
        asked, self.asked = self.asked, self.asked
        expected = [self.lives]
        if asked == ["empty"]:
            self.lives = {
                ioasid: evolve(life, is_doomed=True) for ioasid, life in self.lives.items()
            }
            expected.append(self.lives)
        elif asked is not None and asked[0] == "alloc":
            new = [
                (ioasid, life.generation)
                for ioasid, life in found.items()
                if ioasid not in self.lives or self.lives[ioasid].generation != life.generation
            ]
            if len(new) == asked[1]:
                expected.append(self.after(new))
        elif asked is not None and asked[0] != "alloc_set":
            expected.append(self.after(None))
        set_is_asked = asked is not None and asked[0] == "alloc_set"
        if has_set != self.has_set and not (has_set and set_is_asked):
            raise Violation(f"the set of {self.name} is {'there' if has_set else 'gone'}")
        if not any(_agrees(each, found) for each in expected):
            differ = {
                ioasid: (self.lives.get(ioasid), found.get(ioasid))
                for ioasid in sorted({*self.lives, *found})
                if self.lives.get(ioasid) != found.get(ioasid)
            }
            raise Violation(f"{self.name}, which asked {asked}: known and found: {differ}")
        doomed = {ioasid for ioasid, life in self.lives.items() if life.is_doomed}
        self.has_set, self.asked = has_set, None
        self.lives = {
            ioasid: evolve(life, is_doomed=ioasid in doomed) for ioasid, life in found.items()
        }


def _agrees(known: Lives, found: Lives) -> bool:
    for ioasid, life in known.items():
        other = found.get(ioasid)
        if other is None:
            if (life.is_active and not life.is_doomed) or life.references:
                return False
        elif life.is_active and (other.is_active or not life.is_doomed):
            if evolve(life, is_doomed=False) != other:
                return False
        elif (other.generation, other.is_active, other.references) != (
            life.generation,
            False,
            life.references,
        ):
            return False
    return found.keys() <= known.keys()


@define
class Parent:
    """Starts agents, kills them, and knows what they said."""

    path: Path
    choose: random.Random
    plant: str | None = None
    clients: dict[str, Client] = field(factory=lambda: {name: Client(name) for name in CLIENTS})
    hardware: dict[int, int] = field(factory=dict)
    over: set[tuple[int, int]] = field(factory=set)
    """Lives that the hardware was told the end of."""
    counts: Counter[str] = field(factory=Counter)
    found: dict[str, Lives] = field(factory=dict)
    holders: dict[str, tuple[bool, int]] = field(factory=dict)
    """What the agent recovered: the lives of each client, and who is suspended and holds what."""
    _phase: str = "recovery"

    def run_one(self) -> bool:
        """Start an agent and kill it, if it does not end before; tells whether it was killed."""
        choose = self.choose
        # A planted fault has to be seen on any machine: there no moment depends on the clock, and
        # more agents live until a checkpoint is made.
        by_itself = choose.random() < 0.6 or self.plant is not None
        die_at = int(1.5 ** choose.uniform(0, 20 if self.plant else 16)) if by_itself else None
        # Recovery takes some milliseconds, and a checkpoint begins a process, which takes longest.
        delay = choose.choice([0.02, 0.2, 1.0]) * choose.random()
        orders = Orders(
            self.path,
            choose.randrange(1 << 30),
            dict(self.hardware),
            choose.choice([3, 30, 300]),
            die_at,
            self.plant,
        )
        self.found, self.holders = {}, {}
        pid, pipe = _start(orders)
        self._phase = "recovery"
        said_so = self._read(pid, pipe, PATIENCE if by_itself else delay, hangs=by_itself)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self.counts["killed"] += 1
            how = "in" if said_so else "at any moment of"
            self.counts[f"killed {how} {self._phase}"] += 1
            return True
        self.counts["ended in order"] += 1
        if status:
            raise Violation(f"the agent ended with status {status}")
        return False

    def _read(self, pid: int, pipe: int, seconds: float, *, hangs: bool) -> bool:
        # All that the agent says, until it is gone; tells whether it said what it dies of.
        until, said_so, rest, killed = monotonic() + seconds, False, b"", False
        try:
            while True:
                wait = PATIENCE if killed else max(0.0, until - monotonic())
                if not select.select([pipe], [], [], wait)[0]:
                    if killed or hangs:
                        os.kill(pid, signal.SIGKILL)
                        raise Violation("the agent hangs")
                    os.kill(pid, signal.SIGKILL)
                    killed = True
                    continue
                data = os.read(pipe, 1 << 16)
                if not data:
                    return said_so
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    said_so = self._take(decode(line)) or said_so
        except Violation:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(pipe)

    def _take(self, said: list[Any]) -> bool:
        match said:
            case ["holder", name, suspended, holds]:
                self.holders[name] = suspended, holds
            case ["set", token, _]:
                self.found[token] = {}
            case ["ioasid", token, ioasid, generation, active, spid, references]:
                self.found[token][ioasid] = Life(generation, active, spid, references)
            case ["recovered"]:
                self._phase = "work"
                self._recovered()
            case ["ask", name, *asked]:
                self.counts["requests"] += 1
                self.clients[name].asked = asked
            case ["answer", name, answer]:
                self.counts["acknowledged"] += 1
                client = self.clients[name]
                client.lives = client.after(answer)
                client.has_set, client.asked = True, None
            case ["refused", name, _]:
                self.clients[name].asked = None
            case ["program", ioasid, generation]:
                self.counts["told to hardware"] += 1
                self._program(ioasid, generation)
            case ["clear", ioasid, generation]:
                self.counts["told to hardware"] += 1
                self.over.add((ioasid, generation))
                del self.hardware[ioasid]
            case ["dies", phase, action]:
                self._phase = f"{phase}, at a {action}"
                return True
            case ["end"]:
                self._phase = "end"
            case ["failed", text]:
                raise Violation(f"the agent failed:\n{text}")
            case _:
                raise AssertionError(said)
        return False

    def _program(self, ioasid: int, generation: int) -> None:
        if ioasid in self.hardware:
            raise Violation(f"IOASID {ioasid} is handed out again while hardware has it")
        if (ioasid, generation) in self.over:
            raise Violation(f"a life of IOASID {ioasid} is told of again after its end")
        self.hardware[ioasid] = generation

    def _recovered(self) -> None:
        self.counts["recoveries"] += 1
        for name, client in self.clients.items():
            client.recover(self.found.get(name, {}), has_set=name in self.found)
        lives = {ioasid: life for each in self.found.values() for ioasid, life in each.items()}
        for ioasid, generation in self.hardware.items():
            if ioasid not in lives or lives[ioasid].generation != generation:
                raise Violation(f"hardware has IOASID {ioasid}, which nobody knows of")
        for ioasid, life in lives.items():
            if life.is_active and (ioasid, life.generation) in self.over:
                raise Violation(f"hardware was told of the end of IOASID {ioasid}, which lives")
        for name, (suspended, holds) in self.holders.items():
            if holds and not suspended:
                raise Violation(f"holder {name} is live, and its process is gone")
        holding = {
            name
            for name, lives in self.found.items()
            if any(each.references for each in lives.values())
        } | ({DEVICE} if self.hardware else set())
        if missing := holding - self.holders.keys():
            raise Violation(f"holders are gone: {missing}")


def _start(orders: Orders) -> tuple[int, int]:
    ours, its = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(its)
        return pid, ours
    status = 1
    try:
        os.close(ours)
        run_agent(orders, its)
        status = 0
    except BaseException:  # noqa: BLE001 - the parent is told
        text = traceback.format_exc()[-2000:]
        os.write(its, b'["failed", "' + text.encode("unicode_escape").replace(b'"', b"'") + b'"]\n')
    finally:
        os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.journal.crash", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=1000, help="how many agents are killed")
    parser.add_argument("--seed", type=int, default=0, help="where the choices begin")
    parser.add_argument("--plant", choices=PLANTS, help="plant this fault, which has to be seen")
    options = parser.parse_args(arguments)
    began = monotonic()
    with TemporaryDirectory(prefix="ioasid-crash-") as folder:
        choose = random.Random(options.seed)
        parent = Parent(Path(folder, "journal"), choose, options.plant)
        gc.freeze()
        failure = None
        try:
            while parent.counts["killed"] < options.kills:
                parent.run_one()
        except Violation as violation:
            failure = violation
    for what, times in sorted(parent.counts.items()):
        print(f"{times:>9,}  {what}")
    print(f"{monotonic() - began:>9.1f}  seconds")
    if failure is not None:
        print(f"after {parent.counts['killed']} kills of seed {options.seed}: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
