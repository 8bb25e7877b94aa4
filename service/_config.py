"""The configuration of a service: one TOML file, every field of which has a default."""

from pathlib import Path
from typing import Any, Final, get_args

from attrs import field, fields, frozen

from ioasid.core import ReuseOrder
from ioasid.journal._reboot import OnReboot
from ioasid.service._connect import DEFAULT_PATH
from ioasid.service._limits import Limits
from ioasid.service._settings import TEXT, Settings, is_path, is_text, read_settings

__all__ = ["Config", "read_config"]


@frozen(kw_only=True)
class Config:
    """What a service is told; the fields have the same names in the file."""

    socket: str = DEFAULT_PATH
    """The path of the Unix socket; not used if a service manager passes one."""
    mode: int = 0o660
    """The permissions of the socket; TOML writes them `0o660`."""
    group: str | None = None
    """The group that the socket belongs to; that of the process unless told."""
    policy: str | None = None
    """The path of the policy file; without one, only the user that runs the service gets in."""
    capacity: int | None = None
    """How many IDs there are, 1..2^32-1: 2^20 unless told, or as many as the journal has."""
    order: ReuseOrder = ReuseOrder.CYCLIC
    """The order in which free IDs are given out."""
    journal: str | None = None
    """Where the state is kept: `ioasid.journal` in the state directory that a service manager
    gives; without either, it is lost with the process."""
    on_reboot: OnReboot = "keep"
    """What to do with a journal when the host was booted since: "keep" everything, or "forget" IDs,
    sets and holders, where every boot leaves the hardware clean."""
    metrics: str | None = None
    """The path of a Unix socket that serves metrics; none without it."""
    fleet: str | None = None
    """The store of a fleet whose host this is, an etcd such as `http://127.0.0.1:2379`; the URL of
    one with TLS names its files, `https://HOST:2379?ca=FILE&certificate=FILE&key=FILE`."""
    host: str | None = None
    """The name of this host in its fleet; the machine's unless told."""
    log: str = "INFO"
    """The least level that is logged: DEBUG, INFO, WARNING or ERROR."""
    limits: Limits = field(factory=Limits)
    """The bounds on what a client can cause, a table of its own."""


LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
ON_REBOOT: Final = get_args(OnReboot)


def read_config(path: str | Path) -> Config:
    """Read a configuration file.

    Raises OSError if it can't be read, and `WrongSetting` by name for a key that there is not or a
    value that is no good.
    """
    file = read_settings(path)
    file.refuse_unknown(each.name for each in fields(Config))
    file.check("limits", lambda value: isinstance(value, dict), "a table, below a line [limits]")
    bounds = Settings(file.file, file.found.pop("limits", {}), "limits.{}")
    bounds.refuse_unknown(each.name for each in fields(Limits))
    for name in bounds.found:
        kinds = (int, float) if name == "hello_within" else (int,)
        expected = "a number above 0 and below 2^31" if float in kinds else "a number in 1..2^31-1"
        bounds.check(name, lambda value, kinds=kinds: _is_bound(value, kinds), expected)
    for name in ("socket", "policy", "journal", "metrics"):
        file.check(name, is_path, "a path")
    for name in ("group", "host"):
        file.check(name, is_text, TEXT)
    file.check("fleet", is_path, "a URL, such as http://127.0.0.1:2379")
    file.check(
        "mode",
        lambda value: type(value) is int and 0 <= value <= 0o777,
        "0o0 to 0o777, such as 0o660",
    )
    file.check(
        "capacity", lambda value: type(value) is int and 0 < value < 2**32, "a number in 1..2^32-1"
    )
    for name, choices in {"log": LEVELS, "order": [*ReuseOrder], "on_reboot": ON_REBOOT}.items():
        expected = "one of " + ", ".join(f'"{each}"' for each in choices)
        file.check(name, lambda value, choices=choices: value in choices, expected)
    if "order" in file.found:
        file.found["order"] = ReuseOrder(file.found["order"])
    return Config(**file.found, limits=Limits(**bounds.found))


def _is_bound(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds and 0 < value < 2**31
