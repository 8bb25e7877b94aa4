"""One tool on one fault, in a process of its own: how much it takes until the tool fails.

The program reads the tool's name and the fault, or none, as JSON, and prints a `Verdict` as JSON.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final, NoReturn

from attrs import asdict, frozen

from tests.mutants.planting import Fault, plant

ROOT: Final = Path(__file__).parents[2]
HISTORIES: Final = 60
EXAMPLES: Final = 60
SCHEDULES: Final = 300
"""Of all scenarios together."""
STUCK: Final = 60
"""After so many seconds a step, an example, a schedule or a test is taken to run for ever."""
MEMORY: Final = 4 << 30
"""In bytes, for faults that fill it."""

SEARCHING: Final = (
    "--ignore=tests/core/test_histories.py",
    "--ignore=tests/core/test_properties.py",
)
"""What is in the folder of the core's tests, and a tool of its own here."""
TOGETHER: Final = ("actors", "journal", "linux")
"""Packages whose tests are tried for a fault in any of them."""


@frozen
class Verdict:
    """What a tool found."""

    caught: bool
    count: int
    """How many steps, examples, schedules or tests it took, or were run without a finding."""
    what: str = ""
    """What failed."""


def try_tool(tool: str, fault: Fault | None) -> Verdict:
    """Run a tool on a fault, or on the sound product, and wait for its verdict."""
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps([tool, None if fault is None else asdict(fault)]),
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    lines = done.stdout.splitlines()
    if lines and lines[-1].startswith("{"):
        return Verdict(**json.loads(lines[-1]))
    raise RuntimeError(f"{tool} came to no verdict on {fault and fault.name}:\n{done.stderr}")


class Trial:
    """The tool at work, in the process of its own."""

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self.count = 0
        self.current = ""
        signal.signal(signal.SIGALRM, lambda *_: self.conclude(f"{self.current} has no end"))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        self.output = os.dup(sys.stdout.fileno())

    def advance(self, what: str) -> None:
        """Begin another step, example, schedule or test."""
        self.count += 1
        self.current = what
        signal.alarm(STUCK)

    def conclude(self, what: str) -> NoReturn:
        """Print what was found, if anything, and end the process whatever it is in."""
        verdict = json.dumps(asdict(Verdict(bool(what), self.count, what[:160])))
        os.write(self.output, f"\n{verdict}\n".encode())
        os._exit(0)

    def histories(self) -> None:
        """Run seeded histories; counts steps."""
        from tests.core import test_histories

        step = test_histories.History.step

        def counted(history: test_histories.History) -> None:
            self.advance("a step")
            step(history)

        test_histories.History.step = counted  # type: ignore[assignment,method-assign]
        for seed in range(HISTORIES):
            test_histories.run(seed)

    def properties(self) -> None:
        """Run the stateful properties, without shrinking; counts examples."""
        from hypothesis import Phase, settings
        from hypothesis.control import current_build_context
        from hypothesis.stateful import run_state_machine_as_test

        from tests.core.test_properties import SETTINGS, AllocatorMachine

        begin = AllocatorMachine.__init__

        def counted(machine: AllocatorMachine) -> None:
            # A failing example is run once more, to be shown.
            if not current_build_context().is_final:
                self.advance(f"example {self.count + 1}")
            begin(machine)

        AllocatorMachine.__init__ = counted  # type: ignore[assignment,method-assign]
        generating = settings(SETTINGS, max_examples=EXAMPLES, phases=(Phase.generate,))
        run_state_machine_as_test(AllocatorMachine, settings=generating)

    def schedules(self) -> None:
        """Explore the shipped scenarios in turns; counts schedules."""
        from ioasid.testing import SCENARIOS, ScheduleFailed, explore

        turns = ((seed, name) for seed in range(SCHEDULES) for name in SCENARIOS)
        for seed, name in islice(turns, SCHEDULES):
            scenario, leaks = SCENARIOS[name]
            self.advance(f"{name}, seed {seed},")
            try:
                explore(scenario, [seed], leaks=leaks, shrink=0)
            except ScheduleFailed as failure:
                self.conclude(f"{name}, seed {seed}: {failure.found.failure}")

    def tests(self) -> None:
        """Run the unit tests, on asyncio: of the faulty module, of its package, of others near it.

        Counts tests. Without a fault, all of them.
        """
        import pytest

        class Counter:
            @staticmethod
            def pytest_runtest_logstart(nodeid: str) -> None:
                self.advance(nodeid.rpartition("/")[2])

            @staticmethod
            def pytest_runtest_logreport(report: Any) -> None:
                if report.failed:
                    self.conclude(report.nodeid.rpartition("/")[2])

        plain = ("-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-r", "N")
        asyncio = ("-k", "not uvloop and not trio")
        for tests in unit_tests(self._fault):
            code = pytest.main([*tests, *SEARCHING, *plain, *asyncio], plugins=[Counter()])
            if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                self.conclude(f"pytest ends with {code!r}")


def unit_tests(fault: Fault | None) -> list[list[str]]:
    """The tests to run for a fault, one list of arguments after the other; each test once."""
    if fault is None:
        return [[f"tests/{each}"] for each in ("core", *TOGETHER, "service")]
    package, _, module = fault.module.rpartition(".")
    folders = sorted(
        TOGETHER if package in TOGETHER else {package}, key=lambda each: each != package
    )
    own = f"tests/{package}/test{module}.py"
    rest = [[f"tests/{each}", f"--ignore={own}"] for each in folders]
    return [[own], *rest] if (ROOT / own).exists() else rest


TOOLS: Final[dict[str, Callable[[Trial], None]]] = {
    "histories": Trial.histories,
    "properties": Trial.properties,
    "schedules": Trial.schedules,
    "tests": Trial.tests,
}


def sees(tool: str, fault: Fault) -> bool:
    """Whether a tool runs what a fault is in: schedules all but the service, unit tests all."""
    match tool:
        case "tests":
            return True
        case "schedules":
            return not fault.in_service
        case _:
            return fault.in_core


def main() -> None:
    """Plant the fault, if there is one, and run the tool."""
    tool, given = json.load(sys.stdin)
    fault = None if given is None else Fault(**given)
    trial = Trial(fault)
    if fault is not None:
        plant(fault)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            TOOLS[tool](trial)
    except Exception as error:  # noqa: BLE001 - whatever fails is the finding
        trial.conclude(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    trial.conclude("")


if __name__ == "__main__":
    main()
