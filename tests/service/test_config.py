"""The configuration: its defaults, its fields, and what is wrong in a file, by name."""

from pathlib import Path

import pytest
from attrs import fields

from ioasid.core import InvalidArgument, ReuseOrder
from ioasid.service import Config, Limits, read_config


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    """Nothing needs to be told; the order of reuse is cyclic."""
    path = tmp_path / "config"
    path.write_text("")
    assert Config() == read_config(path)
    assert (ReuseOrder.CYCLIC, 0o660, None) == (Config().order, Config().mode, Config().journal)


def test_every_field_can_be_told(tmp_path: Path) -> None:
    """A file with all of them, none left at its default, is read as it says."""
    path = tmp_path / "config"
    bounds = {each.name: 77 for each in fields(Limits)}
    path.write_text(
        'socket = "/s"\nmode = 0o600\ngroup = "g"\npolicy = "/p"\ncapacity = 9\norder = "LOWEST"\n'
        'journal = "/j"\non_reboot = "forget"\nmetrics = "/m"\nlog = "ERROR"\n'
        'fleet = "http://e:1"\nhost = "h"\n[limits]\n'
        + "\n".join(f"{name} = {value}" for name, value in bounds.items())
    )
    found = read_config(path)
    assert found == Config(
        socket="/s",
        mode=0o600,
        group="g",
        policy="/p",
        capacity=9,
        order=ReuseOrder.LOWEST,
        journal="/j",
        on_reboot="forget",
        metrics="/m",
        fleet="http://e:1",
        host="h",
        log="ERROR",
        limits=Limits(**bounds),
    )
    for each in fields(Config):
        assert getattr(found, each.name) != getattr(Config(), each.name)


BAD = {
    "configuration": "socket",
    "sockets": 'sockets = "/s"',
    "limits.request": "[limits]\nrequest = 5",
    "limits.requests": "[limits]\nrequests = 0",
    "limits.hello_within": "[limits]\nhello_within = -1.5",
    "limits.waits": "[limits]\nwaits = true",
    "limits": "limits = 5",
    "socket": "socket = 5",
    "policy": 'policy = ""',
    "mode": 'mode = "0660"',
    "capacity": "capacity = 0",
    "log": 'log = "LOUD"',
    "order": 'order = "RANDOM"',
    "on_reboot": 'on_reboot = "ask"',
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_good(name: str, tmp_path: Path) -> None:
    """It is refused by the name of the field."""
    path = tmp_path / "config"
    path.write_text(BAD[name] + "\n")
    with pytest.raises(InvalidArgument) as caught:
        read_config(path)
    assert name == caught.value.argument
