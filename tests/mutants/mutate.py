"""General mutation testing of the core: `make mutate`.

Changes one operator, constant, condition or statement of a module after the other and runs the
unit tests of the core, the module's own first. Prints what survives and exits with 1 if anything
does that `EQUIVALENT` does not explain.
"""

import argparse
import ast
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from typing import Any, Final

import pytest
from attrs import frozen
from rich.console import Console
from rich.progress import Progress

from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.planting import Fault, folder_of, plant, source_of
from tests.mutants.trial import MEMORY, SEARCHING

OPERATORS: Final[dict[type[ast.AST], Any]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
FUNCTIONS: Final = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
SOUND: Final = "nothing is changed"
STUCK: Final = 15
"""Seconds of work after which a test is taken to run for ever."""


@frozen
class Mutant:
    """A piece of source, from one byte to another, and what stands there instead."""

    name: str
    """The function and the line that it is in, and the change."""
    begin: int
    end: int
    new: str


class Mutator:
    """Finds what can be changed in a module's source."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        """Yield every mutant, in order of the source."""
        yield from self._visit(ast.parse(self.source), "module")

    def _visit(self, node: ast.AST, where: str) -> Iterator[Mutant]:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            where = node.name if where == "module" else f"{where}.{node.name}"
        if isinstance(node, (ast.expr, ast.stmt, ast.comprehension)):
            for part, new in self._changes(node):
                yield self._mutant(where, part, new)
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "type_params"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not is_untouched(child):
                    yield from self._visit(child, where)

    def _mutant(self, where: str, part: ast.expr | ast.stmt, new: str) -> Mutant:
        assert part.end_lineno is not None
        assert part.end_col_offset is not None
        begin = self.starts[part.lineno - 1] + part.col_offset
        end = self.starts[part.end_lineno - 1] + part.end_col_offset
        line = self.source[self.starts[part.lineno - 1] : self.starts[part.lineno] - 1]
        old = " ".join(self.source[begin:end].decode().split())
        return Mutant(f"{where}: {line.decode().strip()} | {old} → {new}", begin, end, new)

    def _changes(
        self, node: ast.expr | ast.stmt | ast.comprehension
    ) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
        match node:
            case ast.Compare(ops=operators):
                for number, operator in enumerate(operators):
                    compared = deepcopy(node)
                    compared.ops[number] = OPERATORS[type(operator)]()
                    yield node, f"({ast.unparse(compared)})"
            case ast.BoolOp(op=operator) | ast.BinOp(op=operator) if type(operator) in OPERATORS:
                combined = deepcopy(node)
                combined.op = OPERATORS[type(operator)]()
                yield node, f"({ast.unparse(combined)})"
            case ast.UnaryOp(operand=operand):
                yield node, f"({ast.unparse(operand)})"
            case ast.Constant(value=bool(value)):
                yield node, str(not value)
            case ast.Constant(value=int(value)):
                yield node, str(value + 1)
            case ast.Name(id=name) if name in FUNCTIONS:
                yield node, FUNCTIONS[name]
            case ast.Return(value=ast.expr() as value) if not is_none(value):
                yield node, "return None"
            case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Delete() | ast.Raise():
                yield node, "pass"
            case ast.Break() | ast.Continue():
                yield node, "pass"
            case ast.Assign(targets=targets) if all(is_part(each) for each in targets):
                yield node, "pass"
            case ast.For(iter=iterated):
                yield iterated, "()"
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield from negated(test)
            case ast.comprehension(ifs=tests):
                for test in tests:
                    yield from negated(test)
            case _:
                pass


def is_untouched(node: ast.AST) -> bool:
    """Whether a part decides nothing: an assertion, a text, memory, what only checkers read."""
    if isinstance(node, ast.keyword):
        return node.arg == "gc"
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return True
    return isinstance(node, (ast.Assert, ast.JoinedStr))


def negated(test: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """The negation of a condition, unless what it consists of is changed anyway."""
    if not isinstance(test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
        yield test, f"(not {ast.unparse(test)})"


def is_none(value: ast.expr) -> bool:
    """Whether an expression is the constant None."""
    return isinstance(value, ast.Constant) and value.value is None


def is_part(target: ast.expr) -> bool:
    """Whether an assignment changes something that outlives the function's names."""
    return isinstance(target, (ast.Attribute, ast.Subscript))


def core_modules() -> list[str]:
    """The modules of the core, as they are named."""
    names = (path.stem for path in folder_of("core").glob("_*.py"))
    return sorted(name for name in names if name != "__init__")


def faults_of(module: str) -> list[Fault]:
    """Every mutant of a module below `ioasid`, as a fault of its whole source; first, `SOUND`."""
    source, _ = source_of(module)
    raw = source.encode()
    named: Counter[str] = Counter()
    faults = [Fault(SOUND, "", module, source, source)]
    for each in Mutator(source).mutants():
        named[each.name] += 1
        again = f" ({named[each.name]})" if named[each.name] > 1 else ""
        mutated = raw[: each.begin] + each.new.encode() + raw[each.end :]
        faults.append(Fault(each.name + again, "", module, source, mutated.decode()))
    return faults


class Forks:
    """Plugin that forks pytest, before anything of the product is imported, for each fault."""

    def __init__(
        self, faults: Sequence[Fault], jobs: int, done: Callable[[Fault, bool], object]
    ) -> None:
        self.forked = False
        """Whether this is a fork, with its fault planted."""
        self._faults = faults
        self._jobs = jobs
        self._done = done

    def pytest_collection(self) -> bool | None:
        """Fork for each fault; a fork goes on to collect and run the tests."""
        running: dict[int, Fault] = {}
        for fault in self._faults:
            if len(running) >= self._jobs:
                self._wait(running)
            pid = os.fork()
            if not pid:
                self.forked = True
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                self.pytest_runtest_logstart()
                plant(fault)
                return None
            running[pid] = fault
        while running:
            self._wait(running)
        return True

    def pytest_runtest_logstart(self) -> None:
        """A test that does not come to an end kills its fork; a busy machine does not."""
        signal.setitimer(signal.ITIMER_PROF, STUCK)

    def _wait(self, running: dict[int, Fault]) -> None:
        pid, status = os.wait()
        self._done(running.pop(pid), status == 0)


def survivors(
    faults: Sequence[Fault], tests: Sequence[str], jobs: int, done: Callable[[Fault, bool], object]
) -> list[Fault]:
    """Return the faults that none of the tests fails with; `done` is told of each, and whether."""
    alive: list[Fault] = []

    def note(fault: Fault, survives: bool) -> None:
        if survives:
            alive.append(fault)
        done(fault, survives)

    forks = Forks(faults, jobs, note)
    with redirect_stdout(StringIO()):
        code = pytest.main([*tests, "-x", "-p", "no:cacheprovider", "--tb=no"], plugins=[forks])
    if forks.forked:
        os._exit(code)
    return sorted(alive, key=faults.index)


def mutate(name: str, match: str, jobs: int) -> int:
    """Run the tests on the mutants of a module whose names contain `match`.

    Prints what survives without an explanation as soon as it is known, and what has one and does
    not survive; returns how many there are of both.
    """
    explained = EQUIVALENT.get(name, {})
    sound, *mutants = faults_of(f"core.{name}")
    mutants = [each for each in mutants if match in each.name]
    own = [f"tests/core/test_{name.strip('_')}.py"]
    console = Console(stderr=True)
    # Where both are on a terminal, what is printed goes above the bar.
    with Progress(console=console, redirect_stdout=sys.stdout.isatty()) as bars:
        out = sys.stdout

        def advance(_fault: Fault, _survives: bool) -> None:
            bars.advance(task)

        def report(fault: Fault, survives: bool) -> None:
            bars.advance(task)
            if survives and fault is not sound and fault.name not in explained:
                print(f"{name}: {fault.name}", file=out, flush=True)

        task = bars.add_task(name, total=len(mutants))
        alive = survivors(mutants, own, jobs, advance)
        task = bars.add_task("all tests", total=len(alive) + 1)
        alive = survivors([sound, *alive], ("tests/core", *SEARCHING), jobs, report)
    if sound not in alive:
        raise SystemExit("the unit tests of the core fail without any change")
    alive.remove(sound)
    unknown = sum(each.name not in explained for each in alive)
    needless = [each.name for each in mutants if each.name in explained and each not in alive]
    for each in needless:
        print(f"{name}: explained, but a test fails with it: {each}")
    counts = f"{len(mutants)} mutants, {len(alive)} survive, {unknown} unexplained"
    print(f"{name}: {counts}", flush=True)
    return unknown + len(needless)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    core = core_modules()
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", help=", ".join(core))
    parser.add_argument("--match", default="", help="only mutants whose name has this text in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    unexplained = [mutate(each, options.match, options.jobs) for each in options.modules or core]
    return 1 if any(unexplained) else 0


if __name__ == "__main__":
    sys.exit(main())
