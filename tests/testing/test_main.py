"""`python -m ioasid.testing`."""

import runpy
import sys

import pytest


def test_main(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The package runs as a program."""
    monkeypatch.setattr(sys, "argv", ["ioasid.testing", "quota_adjusted_under_load", "--seed", "1"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("ioasid.testing", run_name="__main__")
    assert 0 == ended.value.code
    assert "seed 1 on asyncio: holds" in capsys.readouterr().out


def test_a_process_of_its_pool_runs_no_program() -> None:
    """Where the pool's processes are spawned, they load it under another name: nothing happens."""
    assert "main" in runpy.run_module("ioasid.testing.__main__", run_name="__mp_main__")
