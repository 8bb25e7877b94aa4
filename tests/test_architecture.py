"""What the folders promise each other: imports, names, docstrings, tests.

Read from the source with ``ast`` wherever possible, so that a module counts
even if nothing imports it yet. The packages are read where they are installed:
against the wheel, these tests look at the wheel's own files.
"""

import __future__

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import ioasid.actors
import ioasid.core
import ioasid.fleet
import ioasid.journal
import ioasid.linux
import ioasid.recorder
import ioasid.service
import ioasid.testing

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGES = (
    ioasid.core,
    ioasid.journal,
    ioasid.actors,
    ioasid.linux,
    ioasid.recorder,
    ioasid.service,
    ioasid.fleet,
    ioasid.testing,
)

# The part of the standard library that computes and does nothing else: no event
# loop, no clock, no randomness, no files, no processes, no environment.
PURE_STDLIB = frozenset(
    {
        "__future__",
        "abc",
        "array",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "enum",
        "errno",
        "functools",
        "heapq",
        "itertools",
        "keyword",
        "math",
        "numbers",
        "operator",
        "re",
        "reprlib",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "warnings",
    }
)

# Builtins that reach out of the process, or run what they are given.
IMPURE_BUILTINS = frozenset(
    {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}
)

ALLOWED = {
    ioasid.core: PURE_STDLIB | {"attrs", "msgspec", "ioasid.core"},
    ioasid.journal: frozenset(sys.stdlib_module_names)
    | {"attrs", "msgspec", "ioasid.core", "ioasid.journal"},
    ioasid.actors: frozenset(sys.stdlib_module_names)
    | {"anyio", "attrs", "msgspec", "trio", "outcome"}
    | {"ioasid.core", "ioasid.journal", "ioasid.actors"},
    ioasid.linux: frozenset(sys.stdlib_module_names)
    | {"anyio", "attrs", "ioasid.core", "ioasid.actors", "ioasid.linux"},
    ioasid.recorder: frozenset(sys.stdlib_module_names)
    | {"anyio", "attrs", "msgspec", "ioasid.core", "ioasid.actors", "ioasid.recorder"},
    ioasid.service: frozenset(sys.stdlib_module_names)
    | {"anyio", "attrs", "click", "h11", "msgspec", "prometheus_client", "rich", "textual"}
    | {"ioasid.core", "ioasid.journal"}
    | {"ioasid.actors", "ioasid.linux", "ioasid.recorder", "ioasid.service"},
    ioasid.fleet: frozenset(sys.stdlib_module_names)
    | {"aetcd", "anyio", "attrs", "click", "grpc", "msgspec"}
    | {"ioasid.core", "ioasid.actors", "ioasid.service", "ioasid.fleet"},
    ioasid.testing: frozenset(sys.stdlib_module_names)
    | {"anyio", "attrs", "msgspec", "rich", "trio"}
    | {"ioasid.core", "ioasid.journal", "ioasid.actors", "ioasid.linux", "ioasid.recorder"}
    | {"ioasid.testing"},
}


def folder(package: ModuleType) -> Path:
    """Where the package's files are."""
    assert package.__file__ is not None
    return Path(package.__file__).parent


def modules(package: ModuleType) -> list[Path]:
    """The package's source files, the façade included."""
    return sorted(folder(package).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    """Parse one source file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path, package: ModuleType | None = None) -> Iterator[tuple[ast.stmt, str]]:
    """Every import statement in a file with the absolute name it imports.

    ``from a import b`` counts as ``a``: whether b is a module or a name in one
    makes no difference to the direction. A file in a package may use relative
    imports, and `package` resolves them.
    """
    here: list[str] = []
    if package is not None:
        here = [*package.__name__.split("."), *path.parent.relative_to(folder(package)).parts]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            name = ".".join([*base, node.module] if node.module else base)
            if name == "ioasid":
                for alias in node.names:
                    yield node, f"ioasid.{alias.name}"
            else:
                yield node, name


def within(name: str, allowed: frozenset[str]) -> bool:
    """Whether a module is one of the allowed ones or inside one of them."""
    parts = name.split(".")
    return any(".".join(parts[: end + 1]) in allowed for end in range(len(parts)))


def public_names(package: ModuleType) -> list[str]:
    """What the façade shows without being asked for ``__all__``."""
    return sorted(
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and not isinstance(value, __future__._Feature)
    )


def explained_constants(package: ModuleType) -> set[str]:
    """Names bound at module level with a docstring below or a ``#:`` comment above."""
    explained = set()
    for path in modules(package):
        lines = path.read_text(encoding="utf-8").splitlines()
        body = parse(path).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)]):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name)):
                    pass
                case _:
                    continue
            below = (
                isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            )
            above = node.lineno > 1 and lines[node.lineno - 2].lstrip().startswith("#:")
            beside = "#:" in lines[node.lineno - 1]
            if below or above or beside:
                explained.add(name)
    return explained


def own_methods(cls: type) -> Iterator[tuple[str, object]]:
    """The public methods and properties that a class defines itself."""
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(value, (classmethod, staticmethod)):
            yield name, value.__func__
        elif inspect.isfunction(value) or isinstance(value, property):
            yield name, value


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_imports_point_one_way(package: ModuleType) -> None:
    """A package imports what lies below it and nothing else."""
    strangers = [
        f"{path.name}:{node.lineno}: {name}"
        for path in modules(package)
        for node, name in imported(path, package)
        if not within(name, ALLOWED[package])
    ]
    assert [] == strangers


def test_the_root_leads_to_the_command_line_alone() -> None:
    """`ioasid` itself is a version and a command: it imports nothing but what it runs."""
    found = {
        name
        for path in sorted(Path(str(ioasid.__file__)).parent.glob("*.py"))
        for _, name in imported(path)
        if not within(name, frozenset(sys.stdlib_module_names))
    }
    assert {"ioasid.fleet._command"} == found


def test_core_calls_nothing_that_reaches_outside() -> None:
    """The core uses no builtin that does input or output, or runs text as code."""
    calls = [
        f"{path.name}:{node.lineno}: {node.func.id}"
        for path in modules(ioasid.core)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in IMPURE_BUILTINS
    ]
    assert [] == calls


def test_core_never_waits() -> None:
    """The core holds no coroutine: nothing in it is async."""
    waits = [
        f"{path.name}:{node.lineno}"
        for path in modules(ioasid.core)
        for node in ast.walk(parse(path))
        if isinstance(node, (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await))
    ]
    assert [] == waits


def test_core_loads_no_event_loop() -> None:
    """Importing the core into a fresh interpreter loads no event loop library."""
    program = (
        "import sys, ioasid.core\n"
        "print([name for name in ('anyio', 'asyncio', 'trio', 'uvloop') if name in sys.modules])"
    )
    assert "[]\n" == run(program)


def test_actors_need_neither_trio_nor_uvloop() -> None:
    """The actors import where trio and uvloop are not installed."""
    program = (
        "import sys\n"
        "sys.modules['trio'] = sys.modules['uvloop'] = None\n"
        "import ioasid.actors\n"
        "print('imported')"
    )
    assert "imported\n" == run(program)


def test_clients_need_no_extras() -> None:
    """The service imports where what its command line needs is not installed."""
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('click', 'rich', 'textual', 'trio', 'uvloop')))\n"
        "import ioasid.service\n"
        "print('imported')"
    )
    assert "imported\n" == run(program)


def run(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    result = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "" == result.stderr
    return result.stdout


def test_actors_import_trio_only_when_needed() -> None:
    """A module named for trio imports it; the others only in a function or under a guard."""
    unguarded = [
        f"{path.name}:{node.lineno}: {name}"
        for path in modules(ioasid.actors)
        if not path.stem.endswith("_trio")
        for node, name in imported(path, ioasid.actors)
        if (within(name, frozenset({"trio", "outcome"})) or name.endswith("_trio"))
        and node.col_offset == 0
    ]
    assert [] == unguarded


def for_types_only(path: Path) -> set[str]:
    """The modules that a file imports for its annotations, and never loads."""
    return {
        str(inner.module)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in node.body
        if isinstance(inner, ast.ImportFrom)
    }


def among_themselves(package: ModuleType) -> dict[str, set[str]]:
    """Which modules of a package each of its modules imports, wherever in its file.

    The records of the core refer to each other, as the rows of tables do; there, what is imported
    for the annotations of one does not count.
    """
    names = {path.stem for path in modules(package)} - {"__init__"}
    prefix = f"{package.__name__}."
    found: dict[str, set[str]] = {}
    for path in modules(package):
        if path.stem in names:
            inner = {name for _, name in imported(path, package) if name.startswith(prefix)}
            if package is ioasid.core:
                inner -= for_types_only(path)
            found[path.stem] = {name.removeprefix(prefix).split(".")[0] for name in inner} & names
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_modules_import_in_no_circle(package: ModuleType) -> None:
    """Within a package, too, imports point one way: no module leads back to itself."""
    left = among_themselves(package)
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert {} == left


def test_sessions_and_the_allocator_know_a_port_only() -> None:
    """Session, subscription and actor lead to none of each other; what joins them is the port."""
    imports = among_themselves(ioasid.actors)

    def reach(name: str) -> set[str]:
        found: set[str] = set()
        ahead = [name]
        while ahead:
            needs = imports[ahead.pop()] - found
            found |= needs
            ahead += needs
        return found

    assert "_port" in reach("_session") & reach("_subscription") & reach("_allocator")
    assert not reach("_subscription") & {"_session", "_allocator", "_local_port"}
    assert not reach("_session") & {"_allocator", "_local_port"}
    assert not reach("_allocator") & {"_session", "_subscription", "_queue", "_local_port"}
    assert {"_local_port", "_open"} == {
        name for name, needs in imports.items() if "_allocator" in needs
    }


def private(name: str) -> bool:
    """Whether a name is for its own module only."""
    return name.startswith("_") and not name.endswith("__")


def own_names(path: Path) -> set[str]:
    """The attributes that a module's own classes and functions bind."""
    found: set[str] = set()
    for node in ast.walk(parse(path)):
        match node:
            case ast.ClassDef(body=body):
                for each in body:
                    match each:
                        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                            found.add(name)
                        case ast.AnnAssign(target=ast.Name(id=name)):
                            found.add(name)
                        case ast.Assign(targets=targets):
                            found |= {one.id for one in targets if isinstance(one, ast.Name)}
                        case _:
                            pass
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                found.add(name)
            case _:
                pass
    return found


def test_actors_use_public_members_of_each_other() -> None:
    """A private attribute is used where it is bound, and a private name is imported by nobody."""
    peeks = []
    for path in modules(ioasid.actors):
        own = own_names(path)
        for node in ast.walk(parse(path)):
            match node:
                case ast.Attribute(attr=name) if private(name) and name not in own:
                    peeks.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
                case ast.ImportFrom(module=str(module), names=names) if path.stem != "__init__":
                    peeks += [
                        f"{path.name}:{node.lineno}: {each.name} of {module}"
                        for each in names
                        if private(each.name)
                    ]
                case _:
                    pass
    assert [] == peeks


def test_outsiders_use_the_facades() -> None:
    """Demos and benchmarks import the packages, no module inside them."""
    inner = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for directory in ("demos", "benchmarks")
        for path in sorted((ROOT / directory).rglob("*.py"))
        for node, name in imported(path)
        if name.startswith("ioasid.") and name not in {package.__name__ for package in PACKAGES}
    ]
    assert [] == inner


def test_nobody_imports_the_folders() -> None:
    """What is installed as ioasid.core is never imported as core, nor any other package."""
    folders = frozenset(package.__name__.removeprefix("ioasid.") for package in PACKAGES)
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for directory in ("demos", "benchmarks", "tests")
        for path in sorted((ROOT / directory).rglob("*.py"))
        for node, name in imported(path)
        if within(name, folders)
    ]
    assert [] == bare


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_every_module_has_its_tests(package: ModuleType) -> None:
    """Each module has a test module of the same name, its underscore aside."""
    base = folder(package)
    missing = []
    for path in modules(package):
        if path.stem == "__init__":
            continue
        inside = path.relative_to(base)
        expected = inside.with_name(f"test_{path.stem.strip('_')}.py")
        if not (TESTS / base.name / expected).is_file():
            missing.append(f"tests/{base.name}/{expected.as_posix()}")
    assert [] == missing


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_facade_exports_what_it_says(package: ModuleType) -> None:
    """``__all__`` names every public name of the façade once, and no other."""
    assert public_names(package) == sorted(package.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_every_public_name_is_documented(package: ModuleType) -> None:
    """Every exported class, public method, function and constant has a docstring."""
    constants = explained_constants(package)
    bare = []
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value):
            if not vars(value).get("__doc__") and name not in constants:
                bare.append(name)
            bare += [
                f"{name}.{method}"
                for method, function in own_methods(value)
                if not inspect.getdoc(function) and not inspect.getdoc(getattr(value, method))
            ]
        elif inspect.isroutine(value):
            if not inspect.getdoc(value):
                bare.append(name)
        elif name not in constants:
            bare.append(name)
    assert [] == bare


def test_every_test_says_what_it_shows() -> None:
    """Every test function has a docstring of one paragraph."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(parse(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not one_paragraph(ast.get_docstring(node))
    ]
    assert [] == silent


def one_paragraph(docstring: str | None) -> bool:
    """Whether a docstring is there and says one thing."""
    return bool(docstring) and "\n\n" not in (docstring or "")
