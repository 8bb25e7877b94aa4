"""The configuration: its defaults and its fields."""

from pathlib import Path

from attrs import fields

from ioasid.core import ReuseOrder
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
