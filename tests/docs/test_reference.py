"""The reference names every public thing as the code has it, and nothing else.

What the pages have to look like, so that they can be compared:

- A heading that is all code, like ### `Alloc`, begins the section of that name.
- A table's first column is headed "field" (of a message), "member" (of a class), "value" (of an
  enumeration), "error", or "name" (anything small).
- A request says "- Answer:", "- Errors:" and, in the core, "- Method:"; a class or function whose
  arguments matter says "- Constructor:" or "- Signature:".
"""

import ast
import builtins
import enum
import errno
import inspect
import pathlib
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import attrs
import msgspec
import pytest

import ioasid.actors
import ioasid.core
import ioasid.fleet
import ioasid.journal
import ioasid.linux
import ioasid.recorder
import ioasid.service
import ioasid.testing
from ioasid.actors import (
    Actor,
    KvmRequest,
    Session,
    Subscription,
    VdcmRequest,
    VfioRequest,
    VtdRequest,
)
from ioasid.core import Answer, Effect, EventKind, InvalidArgument, IoasidError, Output, Request

DOCS: Final = Path(__file__).parents[2] / "docs"
OF_TESTING: Final = DOCS / "reference" / "testing.md"
"""It has names that mean something else on other pages."""
REFERENCE: Final = tuple(
    page for page in sorted((DOCS / "reference").glob("*.md")) if page != OF_TESTING
)
PAGES: Final = tuple(sorted(DOCS.rglob("*.md")))
WITHOUT_NAMES_OF_THEIR_OWN: Final = (
    *(page for page in sorted(DOCS.glob("*.md")) if page.stem != "maintainers"),
    *REFERENCE,
    OF_TESTING,
)

NAMES: Final[dict[str, Any]] = {
    name: getattr(package, name)
    for package in (ioasid.core, ioasid.journal, ioasid.actors, ioasid.linux, ioasid.recorder)
    for name in package.__all__
}
ERRORS: Final[dict[str, type[IoasidError]]] = {
    name: value
    for name, value in NAMES.items()
    if inspect.isclass(value) and issubclass(value, IoasidError)
}
INNER: Final = {name for name, value in ERRORS.items() if value.__subclasses__()}
STRUCTS: Final = {
    name: value
    for name, value in NAMES.items()
    if inspect.isclass(value)
    and issubclass(value, msgspec.Struct)
    and value.__name__ == name != "Message"
}
ENUMS: Final = {
    name: value
    for name, value in NAMES.items()
    if inspect.isclass(value) and issubclass(value, enum.Enum) and name != "WireFormat"
}
CLASSES: Final = {
    name: value
    for name, value in NAMES.items()
    if inspect.isclass(value) and not issubclass(value, IoasidError | msgspec.Struct | enum.Enum)
}
CORE_REQUESTS: Final[tuple[type, ...]] = typing.get_args(Request)
ANNOTATIONS: Final = (typing, enum, pathlib)
"""Where the annotations are from that people write and the reference names."""
UNIONS: Final[dict[str, Any]] = {"Request": Request, "Answer": Answer, "Effect": Effect}
"""Types that the reference calls by their name, wherever all of one stands."""
ACTOR_REQUESTS: Final[tuple[type, ...]] = (
    *typing.get_args(VfioRequest),
    *typing.get_args(VtdRequest),
    KvmRequest,
    *typing.get_args(VdcmRequest),
)


# -- the pages --------------------------------------------------------------------------------


class Section(NamedTuple):
    """What stands between one heading and the next."""

    page: Path
    title: str
    lines: list[str]

    @property
    def name(self) -> str | None:
        """What the section is about, if its heading is a name of the code."""
        found = re.fullmatch(r"`(\w+)`", self.title)
        return found and found[1]

    def rows(self, first: str) -> list[dict[str, str]]:
        """The rows of the tables whose first column has this heading."""
        found: list[dict[str, str]] = []
        header: list[str] = []
        for line in self.lines:
            cells = [each.strip() for each in line.strip().strip("|").split("|")]
            if not line.startswith("|"):
                header = []
            elif not header:
                header = cells
            elif header[0] == first and set(cells[0]) - set("-"):
                found.append(dict(zip(header, cells, strict=True)))
        return found

    def item(self, label: str) -> str | None:
        """The list item that begins with a label, without it."""
        text = "\n".join(self.lines)
        found = re.search(rf"^- {label}: (.*?)(?=^- |^$|\Z)", text, re.MULTILINE | re.DOTALL)
        return found and " ".join(found[1].split())


def prose(page: Path) -> str:
    """A page without its code blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def sections(page: Path) -> Iterator[Section]:
    """The sections of a page."""
    title, lines = "", list[str]()
    for line in prose(page).splitlines():
        if line.startswith("#"):
            yield Section(page, title, lines)
            title, lines = line.lstrip("#").strip(), []
        else:
            lines.append(line)
    yield Section(page, title, lines)


SECTIONS: Final = [section for page in REFERENCE for section in sections(page)]
BY_NAME: Final = {section.name: section for section in SECTIONS if section.name}


def code(cell: str) -> str:
    """A table cell that is one piece of code."""
    found = re.fullmatch(r"`(.+)`", cell)
    assert found, cell
    return found[1]


def named(text: str) -> set[str]:
    """The public classes that a text names in code."""
    return {name for name in re.findall(r"`([A-Z]\w+)`", text) if name in NAMES}


# -- the code ---------------------------------------------------------------------------------


def words(annotation: Any) -> str:
    """A type as the reference writes it."""
    arguments = typing.get_args(annotation)
    if isinstance(annotation, types.UnionType):
        left = [*arguments]
        named = []
        for name, union in UNIONS.items():
            members = typing.get_args(union)
            if {*members} <= {*left}:
                named.append(name)
                left = [each for each in left if each not in members]
        return " or ".join([*named, *map(words, left)])
    match typing.get_origin(annotation), arguments:
        case None, _:
            return "None" if annotation is type(None) else str(annotation.__name__)
        case builtins.tuple, (element, builtins.Ellipsis):
            return f"tuple of {words(element)}"
        case builtins.tuple, _:
            return f"({', '.join(words(each) for each in arguments)})"
        case builtins.frozenset, (element,):
            return f"set of {words(element)}"
        case builtins.dict, (key, value):
            mapped = words(value)
            return f"dict of {words(key)} to {f'({mapped})' if ' or ' in mapped else mapped}"
        case _:
            raise AssertionError(annotation)


def default_words(value: Any) -> str:
    """A default as the reference writes it."""
    if value is msgspec.NODEFAULT:
        return "required"
    if value == frozenset(EventKind):
        return "all"
    return f"`{source_of(value)}`"


def source_of(value: Any) -> str:
    """A default as it stands in a signature; `...` for what is long or private."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    return repr(value) if value is None or isinstance(value, bool | int | float | str) else "..."


def signature(function: Any) -> str:
    """A signature without types and `self`."""
    parts: list[str] = []
    starred = False
    for each in inspect.signature(function).parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not starred:
            starred = True
            parts.append("*")
        default = "" if each.default is each.empty else f"={source_of(each.default)}"
        stars = "**" if each.kind is each.VAR_KEYWORD else ""
        parts.append(stars + each.name + default)
    return f"({', '.join(parts)})"


def members(cls: type) -> set[str]:
    """The public attributes of a class, and its methods with their signatures."""
    found = {name for name in vars(cls).get("__annotations__", {}) if not name.startswith("_")}
    if typing.is_typeddict(cls):
        return found
    if not attrs.has(cls) and inspect.isfunction(cls.__init__):  # type: ignore[misc]
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))  # type: ignore[misc]
        found |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and not node.attr.startswith("_")
        }
    for name, value in inspect.getmembers(cls) if cls is Session else vars(cls).items():
        if name.startswith("_") or name in found:
            continue
        if inspect.isroutine(value):
            found.add(name + signature(getattr(cls, name)))
        elif isinstance(value, property):
            found.add(name)
    if issubclass(cls, Actor) and cls is not Actor:
        inherited = {each.partition("(")[0] for each in members(Actor)}
        return {each for each in found if each.partition("(")[0] not in inherited}
    return found


# -- the tests --------------------------------------------------------------------------------


def test_every_name_has_its_place() -> None:
    """Every public name but the errors has one heading or row, and no name is a stranger's."""
    places = [section.name for section in SECTIONS if section.name]
    places += [code(row["name"]) for section in SECTIONS for row in section.rows("name")]
    assert sorted({*NAMES} - {*ERRORS} | {"IoasidError"}) == sorted(places)


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_fields(name: str) -> None:
    """A message's table has its fields, in order, with their types and defaults."""
    hints = typing.get_type_hints(STRUCTS[name])
    expected = [
        (f"`{each.name}`", words(hints[each.name]), default_words(each.default))
        for each in msgspec.structs.fields(STRUCTS[name])
    ]
    rows = BY_NAME[name].rows("field")
    # An answer's defaults concern nobody but its maker.
    is_request = STRUCTS[name] in (*CORE_REQUESTS, *ACTOR_REQUESTS)
    given = [
        (row["field"], row["type"], row["default"] if is_request else usual[2])
        for row, usual in zip(rows, expected, strict=False)
    ]
    assert expected == given
    assert len(expected) == len(rows)


@pytest.mark.parametrize("name", sorted(ENUMS))
def test_values(name: str) -> None:
    """An enumeration's table has its values, in order: every kind of event among them."""
    expected = [each.value for each in ENUMS[name]]
    assert expected == [code(row["value"]) for row in BY_NAME[name].rows("value")]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_members(name: str) -> None:
    """A class's table has its public methods, with their signatures, and attributes."""
    rows = [code(row["member"]) for row in BY_NAME[name].rows("member")]
    assert sorted(members(CLASSES[name])) == sorted(rows)


def test_signatures() -> None:
    """Where the reference shows how to call a class or function, that is how it is called."""
    shown = {
        name: item
        for name, section in BY_NAME.items()
        if (item := section.item("Constructor") or section.item("Signature"))
    }
    for section in SECTIONS:
        for row in section.rows("name"):
            if inspect.isfunction(NAMES[code(row["name"])]):
                shown[code(row["name"])] = row["what it is"]
    functions = {name for name, value in NAMES.items() if inspect.isfunction(value)}
    assert functions <= shown.keys()
    for name, text in shown.items():
        assert text.startswith(f"`{name}{signature(NAMES[name])}`"), name


@pytest.mark.parametrize("request_", CORE_REQUESTS, ids=lambda each: str(each.__name__))
def test_requests(request_: type) -> None:
    """A request's answer and errors are those of its docstring, and its method sends it."""
    section = BY_NAME[request_.__name__]
    docstring = inspect.getdoc(request_) or ""
    before, _, after = docstring.partition("Errors:")
    assert named(before.partition("Answer:")[2]) == named(section.item("Answer") or "")
    errors = section.item("Errors") or ""
    assert named(after) - {InvalidArgument.__name__} == named(errors)
    assert bool(named(errors)) == (errors != "none")
    method = section.item("Method") or ""
    if method.partition(",")[0] == "none":
        return  # It comes from whoever drives the allocator.
    sender: Any = Subscription
    if call := re.match(r"`(Session|Subscription)\.(\w+)(\(.*?\))`", method):
        sender = getattr(NAMES[call[1]], call[2])
        assert signature(sender) == call[3]
    # Or it calls what a port has for that, by the same name.
    source = inspect.getsource(inspect.unwrap(sender)).lower()
    assert f"{request_.__name__}(".lower() in source


@pytest.mark.parametrize("request_", ACTOR_REQUESTS, ids=lambda each: str(each.__name__))
def test_requests_to_device_actors(request_: type) -> None:
    """A device actor's request has its answer, and the errors of its docstring."""
    section = BY_NAME[request_.__name__]
    assert section.item("Answer")
    errors = section.item("Errors") or ""
    assert named((inspect.getdoc(request_) or "").partition("Errors:")[2]) == named(errors)
    assert bool(named(errors)) == (errors != "none")


def test_every_message_is_shown() -> None:
    """Every request and answer of the core is shown as JSON."""
    text = (DOCS / "reference" / "messages.md").read_text(encoding="utf-8")
    messages = (*CORE_REQUESTS, *typing.get_args(Output))
    assert [] == [each for each in messages if f'"type":"{each.__name__}"' not in text]


def test_every_method_of_a_session_is_named() -> None:
    """Each method of a session is named by the request that it sends, or sends any."""
    methods = {name for name, value in inspect.getmembers(Session) if inspect.isroutine(value)}
    calls = " ".join(BY_NAME[each.__name__].item("Method") or "" for each in CORE_REQUESTS)
    silent = {
        each for each in methods if not each.startswith("_") and f"`Session.{each}(" not in calls
    }
    assert {"ask", "insist", "snapshot"} == silent


@pytest.mark.parametrize("name", sorted({*ERRORS} - INNER))
def test_errors(name: str) -> None:
    """An error that is raised has one row, with its facts in order, below its errno."""
    found = [
        (section, row)
        for section in SECTIONS
        for row in section.rows("error")
        if row["error"] == f"`{name}`"
    ]
    assert 1 == len(found)
    section, row = found[0]
    facts = [each.name for each in attrs.fields(ERRORS[name])]
    given = re.findall(r"`(\w+)`", row["facts"])
    assert facts == given
    assert row["raised when"]
    assert row["what to do"]
    assert example(ERRORS[name]).code in section.title.rpartition(": ")[2].split(", ")


def test_no_other_errors() -> None:
    """Every row of an error is of one of ours, or of those that the last section lists."""
    rows = [
        code(row["error"])
        for section in SECTIONS
        for row in section.rows("error")
        if section.title != "Errors that are not ours"
    ]
    assert [] == sorted({*rows} - {*ERRORS})


def test_inner_errors() -> None:
    """Every inner class of the tree is a heading with its errno."""
    headings = {section.title for section in SECTIONS}
    expected = {f"{name}: {ERRORS[name]().code}" for name in INNER - {"IoasidError"}}
    assert set() == expected - headings


def test_the_tree_of_errors() -> None:
    """The tree is drawn as the classes are derived, each with its errno."""
    text = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert drawn
    path: list[str] = []
    tree = {}
    for line in drawn[1].splitlines():
        name, errno_name = line.split()
        depth = (len(line) - len(line.lstrip())) // 4
        path[depth:] = [name]
        tree[name] = (path[depth - 1] if depth else "Exception", errno_name)
    expected = {
        name: (kind.__base__.__name__, example(kind).code)
        for name, kind in ERRORS.items()
        if kind.__base__ is not None
    }
    assert expected == tree


def example(kind: type[IoasidError]) -> IoasidError:
    """An error of a kind, with any facts."""
    return kind(*("1" for _ in attrs.fields(kind)))


@pytest.mark.parametrize("page", WITHOUT_NAMES_OF_THEIR_OWN, ids=lambda page: str(page.stem))
def test_nothing_is_unknown(page: Path) -> None:
    """Every name in capitals that a page writes as code is one of the code."""
    enums: tuple[type[enum.Enum], ...] = (*ENUMS.values(), ioasid.fleet.Phase, ioasid.fleet.Act)
    values = {each.value for kind in enums for each in kind} | {"None", "True", "False"}
    values |= {*errno.errorcode.values()}
    strangers = []
    for text in re.findall(r"`([^`\n]+)`", prose(page)):
        found = re.match(r"[A-Z]\w*(\.\w+)*", text)
        if found is None or found[0] in values or re.match(r"IOASID_|[A-Z_]+=", text):
            continue  # the last are variables of the environment
        head, *rest = found[0].split(".")
        known = NAMES.get(head)
        for package in (ioasid.testing, ioasid.service, ioasid.fleet, builtins, *ANNOTATIONS):
            known = known or getattr(package, head, None)
        if known is None or not all(has(known, each) for each in rest):
            strangers.append(text)
    strangers += [
        each for each in re.findall(r"`anyio\.(\w+)", prose(page)) if not hasattr(anyio, each)
    ]
    assert [] == strangers


def has(value: Any, attribute: str) -> bool:
    """Whether a class has a method, attribute or field of this name."""
    if hasattr(value, attribute):
        return True
    return inspect.isclass(value) and attribute in {
        each.partition("(")[0] for each in members(value)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a page or folder of ours finds it, and the heading in it."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        if not aim.exists() or (anchor and anchor not in anchors(aim)):
            broken.append(target)
    assert [] == broken


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", section.title.lower()).replace(" ", "-")
        for section in sections(page)
    }
