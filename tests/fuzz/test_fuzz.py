"""A fixed part of what `make fuzz` runs, and the program itself."""

import random

import pytest

from tests.fuzz.__main__ import PER_ROUND, Round, main, run_round
from tests.fuzz.targets import TARGETS, Target

ROUNDS = [("decode", seed) for seed in range(20)]
ROUNDS += [("frames", seed) for seed in range(10)]
ROUNDS += [("handle", seed) for seed in range(10)]
ROUNDS += [("restore", seed) for seed in range(10)]
ROUNDS += [("bursts", seed) for seed in range(6)]


@pytest.mark.parametrize(("target", "seed"), ROUNDS)
def test_nothing_else_comes_of_it(target: str, seed: int) -> None:
    """Messages, typed errors and sound allocators are all that comes of anything."""
    assert [] == run_round(Round(target, seed, PER_ROUND[target])).failures


@pytest.mark.parametrize("target", TARGETS)
def test_a_seed_is_a_round(target: str) -> None:
    """The same seed gives the same cases, and another seed others."""
    cases = min(PER_ROUND[target], 200)
    first, second, other = (run_round(Round(target, seed, cases)).counts for seed in (1, 1, 2))
    assert first == second
    assert first != other


class Thirteenth(Target):
    """A target whose thirteenth case goes wrong, whatever the seed."""

    def __init__(self, choose: random.Random) -> None:
        super().__init__(choose)
        self.asked = 0

    def case(self) -> str:
        """Count."""
        self.asked += 1
        self.shown = f"number {self.asked}, {self.choose.randrange(1000)}"
        assert self.asked < 13, "one too many"
        return "counted"


def test_a_failure_says_how_to_run_it_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing run exits with 1, and what it prints leads to the same case again."""
    monkeypatch.setitem(TARGETS, "decode", Thirteenth)
    assert 1 == main(["--target", "decode", "--scale", "0.004", "--first", "7", "--jobs", "1"])
    printed = capsys.readouterr().out
    failure = printed[printed.index("decode, seed 7, case 12: number 13") :].splitlines()
    assert "Again: python -m tests.fuzz --target decode --seed 7" == failure[1]
    assert "24 cases, 2 failures" == failure[-1]
    assert 1 == main(["--target", "decode", "--seed", "7", "--jobs", "1"])
    assert failure[0] in capsys.readouterr().out


def test_a_run_without_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """A run counts what its cases came to, and exits with 0."""
    assert 0 == main(["--scale", "0.0002", "--jobs", "1"])
    assert "251 cases, no failures" in capsys.readouterr().out
