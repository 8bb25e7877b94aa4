"""The configuration of a service: one TOML file, every field of which has a default."""

import tomllib
from pathlib import Path
from typing import Any, Final, get_args

from attrs import field, fields, frozen

from ioasid.core import InvalidArgument, ReuseOrder
from ioasid.journal._reboot import OnReboot
from ioasid.service._connect import DEFAULT_PATH
from ioasid.service._limits import Limits

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
    """The store of a fleet whose host this is, an etcd such as `http://127.0.0.1:2379`."""
    host: str | None = None
    """The name of this host in its fleet; the machine's unless told."""
    log: str = "INFO"
    """The least level that is logged: DEBUG, INFO, WARNING or ERROR."""
    limits: Limits = field(factory=Limits)
    """The bounds on what a client can cause, a table of its own."""


LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


def read_config(path: str | Path) -> Config:
    """Read a configuration file.

    Raises OSError if it can't be read, and `InvalidArgument` by name for a field that there is not
    or a value that is no good.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument("configuration", str(error), f"TOML in {path}") from None
    _refuse_unknown(found, Config, "")
    bounds = found.pop("limits", {})
    if not isinstance(bounds, dict):
        raise InvalidArgument.of("limits", bounds, "a table")
    _refuse_unknown(bounds, Limits, "limits.")
    for name, value in bounds.items():
        number = type(value) is int or (name == "hello_within" and type(value) is float)
        if not number or not 0 < value < 2**31:
            raise InvalidArgument.of(f"limits.{name}", value, "a number in 1..2^31-1")
    for name in ("socket", "group", "policy", "journal", "metrics", "fleet", "host"):
        if name in found and (type(found[name]) is not str or not found[name]):
            raise InvalidArgument.of(name, found[name], "text that is not empty")
    _check(found, "mode", lambda value: type(value) is int and 0 <= value <= 0o777, "0o0 to 0o777")
    _check(found, "capacity", lambda value: type(value) is int and 0 < value < 2**32, "1..2^32-1")
    _check(found, "log", lambda value: value in LEVELS, " or ".join(LEVELS))
    _check(found, "order", lambda value: value in list(ReuseOrder), " or ".join(ReuseOrder))
    _check(found, "on_reboot", lambda value: value in get_args(OnReboot), "'keep' or 'forget'")
    if "order" in found:
        found["order"] = ReuseOrder(found["order"])
    return Config(**found, limits=Limits(**bounds))


def _refuse_unknown(found: dict[str, Any], kind: Any, prefix: str) -> None:
    known = [each.name for each in fields(kind)]
    for name in found:
        if name not in known:
            raise InvalidArgument(f"{prefix}{name}", "no field", "one of " + ", ".join(known))


def _check(found: dict[str, Any], name: str, is_good: Any, expected: str) -> None:
    if name in found and not is_good(found[name]):
        raise InvalidArgument.of(name, found[name], expected)
