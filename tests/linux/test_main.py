"""The program behind `python -m ioasid.linux`."""

import pytest

from ioasid.linux import __main__ as program
from ioasid.linux import probe


def test_probe_prints_what_this_machine_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what `probe` says, and its exit code is whether anything is missing."""
    found = probe()
    assert (0 if found.ready else 1) == program.main(["probe"])
    assert f"{found}\n" == capsys.readouterr().out


def test_another_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """What it does not know is a mistake of the caller."""
    with pytest.raises(SystemExit) as caught:
        program.main(["pobre"])
    assert 2 == caught.value.code
    assert "invalid choice: 'pobre'" in capsys.readouterr().err
