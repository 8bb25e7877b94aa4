"""How a fault is planted: a module's source is changed as it is imported.

The piece that a fault replaces has to occur exactly once. A fault whose piece is gone is stale,
and an error: never one that is silently not planted.
"""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

from attrs import frozen


@frozen
class Fault:
    """One bug: what it is called, the rule that it breaks, and where."""

    name: str
    rule: str
    module: str
    """Below `ioasid`."""
    old: str
    new: str

    @property
    def full_module(self) -> str:
        """The module's name as it is imported."""
        return f"ioasid.{self.module}"

    @property
    def in_core(self) -> bool:
        """Whether it is in the core, and not in the actors or below them."""
        return self.module.startswith("core.")

    @property
    def in_service(self) -> bool:
        """Whether it is in the service."""
        return self.module.startswith("service.")


class StaleFault(Exception):
    """The source that a fault changes is not there, or there more than once."""


def folder_of(package: str) -> Path:
    """Return where a package below `ioasid`, which is not imported, is installed."""
    spec = importlib.util.find_spec(f"ioasid.{package}")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise StaleFault(f"there is no package {package}")
    return Path(folders[0])


def source_of(module: str) -> tuple[str, Path]:
    """Return the sound source of a module below `ioasid`, which is not imported, and its path."""
    package, _, name = module.rpartition(".")
    path = folder_of(package) / f"{name}.py"
    if not path.is_file():
        raise StaleFault(f"there is no module {module}")
    return path.read_text(encoding="utf-8"), path


def patch(fault: Fault, source: str) -> str:
    """Return a module's source with the fault in it. Raises `StaleFault`."""
    found = source.count(fault.old)
    if found != 1:
        raise StaleFault(f"{fault.name}: its piece of {fault.module} is there {found} times")
    return source.replace(fault.old, fault.new)


def plant(fault: Fault) -> None:
    """Plant a fault in this process, for good. Its module must not have been imported yet."""
    if fault.full_module in sys.modules:
        raise RuntimeError(f"{fault.full_module} is imported already")
    source, path = source_of(fault.module)
    faulty: CodeType = compile(patch(fault, source), path, "exec", dont_inherit=True)
    sound = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
        return faulty if fullname == fault.full_module else sound(loader, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment,method-assign]
