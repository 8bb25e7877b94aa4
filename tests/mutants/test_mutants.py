"""The planted faults: all of them apply, and the tools tell the sound product from a faulty one."""

import ast
import importlib
from pathlib import Path

import pytest
from attrs import evolve

from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.faults import BY_NAME, FAULTS
from tests.mutants.mutate import Mutator, faults_of
from tests.mutants.planting import Fault, StaleFault, patch, plant, source_of
from tests.mutants.run import (
    BEGIN,
    END,
    cells,
    markdown,
    measured,
    missing,
    shown_table,
    write_page,
)
from tests.mutants.trial import TOOLS, Verdict, try_tool, unit_tests


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_every_fault_applies(fault: Fault) -> None:
    """The piece that a fault replaces is there once, and what comes of it is Python."""
    source, _ = source_of(fault.module)
    ast.parse(patch(fault, source))


def test_names_are_unique() -> None:
    """Every fault has a name of its own."""
    assert len(FAULTS) == len(BY_NAME)


def test_stale_fault_is_refused() -> None:
    """A piece that is gone or there twice, or a module that is gone, is an error."""
    fault = FAULTS[0]
    with pytest.raises(StaleFault, match=f"{fault.name}.* 0 times"):
        patch(fault, "")
    with pytest.raises(StaleFault, match=f"{fault.name}.* 2 times"):
        patch(fault, fault.old * 2)
    with pytest.raises(StaleFault, match="no module core"):
        plant(evolve(fault, module="core._nothing"))


def test_planted_too_late() -> None:
    """A module that is imported already takes no fault."""
    fault = FAULTS[0]
    importlib.import_module(fault.full_module)
    with pytest.raises(RuntimeError, match="imported already"):
        plant(fault)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ("histories", "tier-not-awaited"),
        ("tests", "quota-off-by-one"),
        ("schedules", "reply-lost-at-shutdown"),
        ("tests", "acknowledgement-not-sent"),
        ("tests", "large-frame-taken"),
    ],
)
def test_fault_is_caught(tool: str, name: str) -> None:
    """Each tool catches one of its faults within its bound."""
    verdict = try_tool(tool, BY_NAME[name])
    assert verdict.caught
    assert verdict.count > 0
    assert "" != verdict.what


def test_page_shows_what_was_run() -> None:
    """Its rows are of faults, in order, each caught by some tool, and in its present words."""
    shown = measured(shown_table())
    assert [each.name for each in FAULTS if each.name in shown] == [*shown]
    assert [] == [name for name, fields in shown.items() if {*fields} <= {"", "—"}]
    assert shown_table() == markdown(FAULTS, tuple(TOOLS), {}, shown_table())


def test_page_keeps_what_is_around_the_table(tmp_path: Path) -> None:
    """Only what is between the markers is replaced."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n", encoding="utf-8")
    write_page("new\n", page)
    assert f"before\n{BEGIN}new\n{END}after\n" == page.read_text("utf-8")


def test_table() -> None:
    """A field has how much it took, or that it was caught, a dash if it was not, or nothing."""
    fault = FAULTS[0]
    found = {"histories": Verdict(True, 1), "properties": Verdict(False, 60)}
    assert ["1 step", "—", "", "yes"] == cells(tuple(TOOLS), found | {"tests": Verdict(True, 900)})
    table = markdown(FAULTS, tuple(TOOLS), {"": {}, fault.name: found})
    assert [fault.name] == [*measured(table)]
    assert table.endswith("| caught |  | 1 of 1 | 0 of 1 | 0 of 0 | 0 of 0 |\n")


def test_table_keeps_what_was_measured() -> None:
    """A run replaces the fields of what it ran; others keep theirs, and are run when asked for."""
    one, two, three = FAULTS[:3]
    first = {one.name: {"tests": Verdict(True, 4)}, two.name: {"tests": Verdict(False, 9)}}
    before = markdown(FAULTS[:3], tuple(TOOLS), first)
    assert {one.name: ["", "", "", "yes"], two.name: ["", "", "", "—"]} == measured(before)
    assert before.endswith("| 0 of 0 | 0 of 0 | 0 of 0 | 1 of 2 |\n")
    left = missing(FAULTS[:3], before)
    assert {("tests", three.name)} == {each for each in left if each[0] == "tests"}
    assert 10 == len(left)
    second = {two.name: {"histories": Verdict(True, 1), "tests": Verdict(True, 2)}}
    after = measured(markdown(FAULTS[:3], tuple(TOOLS), second, before))
    assert ["", "", "", "yes"] == after[one.name]
    assert ["1 step", "", "", "yes"] == after[two.name]


def test_unit_tests_of_a_fault() -> None:
    """Those of its module come first, then those of its package and of others near it."""
    by_module = {each.module: each for each in FAULTS}
    assert [
        ["tests/core/test_table.py"],
        ["tests/core", "--ignore=tests/core/test_table.py"],
    ] == unit_tests(evolve(FAULTS[0], module="core._table"))
    found = unit_tests(next(by_module[each] for each in by_module if each.startswith("linux.")))
    assert ["tests/linux", "tests/actors", "tests/journal"] == [each[0] for each in found[-3:]]
    assert [["tests/core", "--ignore=tests/core/test_x.py"]] == unit_tests(
        evolve(FAULTS[0], module="core._x")
    )


def test_general_mutants() -> None:
    """Operators, constants, conditions and statements are changed, one at a time."""
    source = "def f(n: int = 1) -> int:\n    if n and n < 2:\n        g(n)\n    return n + 1\n"
    changed = [
        source[: each.begin] + each.new + source[each.end :] for each in Mutator(source).mutants()
    ]
    assert [
        source.replace("= 1", "= 2"),
        source.replace("n and n < 2", "(n or n < 2)"),
        source.replace("n < 2", "(n <= 2)"),
        source.replace("2", "3"),
        source.replace("g(n)", "pass"),
        source.replace("return n + 1", "return None"),
        source.replace("n + 1", "(n - 1)"),
        source.replace("+ 1", "+ 2"),
    ] == changed


@pytest.mark.parametrize("module", EQUIVALENT)
def test_every_explanation_is_of_a_mutant(module: str) -> None:
    """What is said to be equal to the original is there, and in order of the source."""
    explained = list(EQUIVALENT[module])
    names = [each.name for each in faults_of(f"core.{module}")]
    assert explained == [name for name in names if name in explained]
