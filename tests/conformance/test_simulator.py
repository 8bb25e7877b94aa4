"""Traces that nobody recorded, from a simulator that is tried on the recorded ones first."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import generated
from tests.conformance.replay.engine import TraceReport, Verdict, replay
from tests.conformance.replay.rules import Rule
from tests.conformance.replay.trace import load
from tests.conformance.simulator import Simulator

FILES = sorted((Path(__file__).parent / "data").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_simulator_answers_as_the_kernel_did(path: Path) -> None:
    """Every recorded answer, callback and state comes out of the simulator as it was recorded."""
    trace = json.loads(path.read_text(encoding="utf-8"))
    simulator = Simulator(trace.get("prio"))

    for recorded in trace["steps"]:
        if isinstance(recorded, dict):
            assert recorded == simulator.step(recorded["op"])
        else:
            step = simulator.step(recorded[:-1])
            assert recorded[-1] == {
                key: step[key] for key in step.keys() - {"op", "events", "state"}
            }
    for part, expected in trace.get("final", {}).items():
        found = simulator.state()[part]
        assert expected == [{key: one[key] for key in expected[0]} for one in found]


def judged(trace: dict[str, Any], into: Path) -> TraceReport:
    """Replay a trace that is in no file."""
    path = into / "simulated.json"
    path.write_text(json.dumps(trace))
    return replay(load(path))


def disagreements(report: TraceReport) -> list[object]:
    """What nobody decided."""
    wrong = [step for step in report.steps if step.verdict is Verdict.DISAGREEMENT]
    return [*wrong, *report.end]


@pytest.mark.parametrize("seed", range(40))
def test_an_unseen_scenario_is_judged(tmp_path: Path, seed: int) -> None:
    """Whatever operations meet, with subscribers, every difference follows from a rule."""
    assert [] == disagreements(judged(generated.scenario(seed), tmp_path))


@pytest.mark.parametrize("seed", range(20))
def test_an_unseen_random_trace_is_judged(tmp_path: Path, seed: int) -> None:
    """Without subscribers and without a state in every step, too, up to the end."""
    assert [] == disagreements(judged(generated.random_trace(seed), tmp_path))


def test_the_generator_reaches_everything(tmp_path: Path) -> None:
    """Its traces have every operation of a recorder in them, and need most of the rules."""
    operations = set()
    found = set[Rule]()
    for seed in range(40):
        trace = generated.scenario(seed)
        operations |= {step["op"][0] for step in trace["steps"]}
        found |= judged(trace, tmp_path).rules.keys()

    assert {name.removeprefix("do_") for name in vars(Simulator) if name[:3] == "do_"} == operations
    assert 20 <= len(found)


@pytest.mark.parametrize("seed", range(20))
def test_a_wrong_answer_is_found_in_any_trace(tmp_path: Path, seed: int) -> None:
    """In traces that nobody has seen a wrong answer is found wherever it is."""
    trace = generated.random_trace(seed, length=60)
    for number in range(seed % 7, len(trace["steps"]), 7):
        planted = deepcopy(trace)
        planted["steps"][number][-1] = {"ret": 4711}
        assert Verdict.DISAGREEMENT is judged(planted, tmp_path).steps[number].verdict
