"""The demo of three VMMs, one of them in C: what it shows is what happens."""

import shutil

import pytest

from demos.vmm.run import WIDTH, main

COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.mark.slow
@pytest.mark.parametrize(
    "compiler",
    [
        pytest.param(
            COMPILER,
            marks=pytest.mark.skipif(COMPILER is None, reason="no C compiler: apt install gcc"),
        ),
        "",
    ],
    ids=["in C", "without a compiler"],
)
def test_one_of_three_is_killed(compiler: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What the killed one had waits for device and IOMMU; the one in C does as others do."""
    assert 0 == main(["--cc", compiler])
    shown, error = capfd.readouterr()
    assert "" == error
    assert ("$ cc vmm.c" in shown) == bool(compiler)
    assert "NOT SO" not in shown
    assert 5 == shown.count("✓")
    assert [] == [line for line in shown.splitlines() if len(line) > WIDTH]
    after = shown.partition("$ ioasid evict kvm:vm-2")[2]
    told = [after.index(text) for text in ("stops 2", "done with 2", "entry of 2 gone", "102 to 2")]
    assert sorted(told) == told
    assert "vm-3    4 is back in the pool" in after
