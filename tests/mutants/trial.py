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
from pathlib import Path
from typing import Any, Final, NoReturn

from attrs import asdict, frozen

from tests.mutants.planting import Fault, plant

ROOT: Final = Path(__file__).parents[2]
HISTORIES: Final = 60
EXAMPLES: Final = 60
SCHEDULES: Final = 60
"""Of every scenario."""
STUCK: Final = 60
"""After so many seconds a step, an example, a schedule or a test is taken to run for ever."""
MEMORY: Final = 4 << 30
"""In bytes, for faults that fill it."""

UNIT_TESTS: Final = (
    "tests/core",
    "--ignore=tests/core/test_histories.py",
    "--ignore=tests/core/test_properties.py",
)
"""Those of the core."""


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

    def __init__(self, package: str) -> None:
        self._package = package
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

        for seed in range(SCHEDULES):
            for name, (scenario, leaks) in SCENARIOS.items():
                self.advance(f"{name}, seed {seed},")
                try:
                    explore(scenario, [seed], leaks=leaks, shrink=0)
                except ScheduleFailed as failure:
                    self.conclude(f"{name}, seed {seed}: {failure.found.failure}")

    def core(self) -> None:
        """Run the unit tests of the core; counts tests."""
        self._unit_tests(*UNIT_TESTS)

    def actors(self) -> None:
        """Run the tests of actors, journal and below, on asyncio; those of the faulty one first."""
        packages = sorted(("actors", "journal", "linux"), key=lambda each: each != self._package)
        folders = (f"tests/{each}" for each in packages)
        self._unit_tests(*folders, "-k", "not uvloop and not trio")

    def service(self) -> None:
        """Run the tests of the service, on asyncio; counts tests."""
        self._unit_tests("tests/service", "-k", "not uvloop and not trio")

    def _unit_tests(self, *options: str) -> None:
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
        code = pytest.main([*options, *plain], plugins=[Counter()])
        if code != pytest.ExitCode.OK:
            self.conclude(f"pytest ends with {code!r}")


TOOLS: Final[dict[str, Callable[[Trial], None]]] = {
    "histories": Trial.histories,
    "properties": Trial.properties,
    "schedules": Trial.schedules,
    "core": Trial.core,
    "actors": Trial.actors,
    "service": Trial.service,
}


def sees(tool: str, fault: Fault) -> bool:
    """Whether a tool runs what a fault is in; the schedules run all of it but the service."""
    if tool == "service" or fault.in_service:
        return tool == "service" and fault.in_service
    return tool == "schedules" or fault.in_core == (tool != "actors")


def main() -> None:
    """Plant the fault, if there is one, and run the tool."""
    tool, fault = json.load(sys.stdin)
    trial = Trial("" if fault is None else Fault(**fault).module.partition(".")[0])
    if fault is not None:
        plant(Fault(**fault))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            TOOLS[tool](trial)
    except Exception as error:  # noqa: BLE001 - whatever fails is the finding
        trial.conclude(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    trial.conclude("")


if __name__ == "__main__":
    main()
