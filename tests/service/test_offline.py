"""The commands that ask no service, and what a service records for one of them."""

import json
from pathlib import Path

import anyio
import pytest

from ioasid.actors import open_allocator
from ioasid.linux import probe
from tests.service.programs import a_program, call


@pytest.mark.slow
def test_a_service_that_records_is_drawn(tmp_path: Path) -> None:
    """As a page and as a trace, also when the last line is torn."""
    recording = tmp_path / "r.jsonl"
    with a_program(tmp_path, arguments=("--record", str(recording))) as program:
        program.call("alloc-set", "vm-77", "8")
        program.call("alloc", "vm-77")
        program.end()
    for name in ("page.html", "trace.json"):
        assert (0, "", "") == call("draw", str(recording), "-o", str(tmp_path / name))
        assert "vm-77" in (tmp_path / name).read_text(encoding="utf-8")
    with recording.open("a") as file:
        file.write("{")
    status, _, error = call("draw", str(recording), "-o", str(tmp_path / "page.html"))
    assert (0, True) == (status, error.startswith("ioasid: "))


def test_nothing_to_draw(tmp_path: Path) -> None:
    """Neither a recording nor an ending that is known: one line says so."""
    for output, expected in (("page.html", 3), ("page.txt", 2)):
        status, _, error = call("draw", str(tmp_path / "gone"), "-o", str(tmp_path / output))
        assert (expected, 1) == (status, len(error.splitlines()))
        assert not (tmp_path / output).exists()


def test_a_journal_is_looked_at(tmp_path: Path) -> None:
    """The status says whether it is sound, and the requests are shown when asked for."""

    async def fill() -> None:
        async with open_allocator(journal=tmp_path / "j") as allocator:
            await allocator.alloc_set("vm-77", 8)

    anyio.run(fill)
    status, out, _ = call("journal", "check", str(tmp_path / "j"))
    assert (0, True) == (status, "1 set," in out)
    assert "damage:      none" in out
    status, out, _ = call("journal", "check", str(tmp_path / "j"), "-o", "json")
    assert (0, 1) == (status, json.loads(out)["sets"])
    data = bytearray((tmp_path / "j").read_bytes())
    place = data.index(b"vm-77")
    data[place : place + 5] = b"vm-78"
    (tmp_path / "j").write_bytes(data)
    status, out, _ = call("journal", "check", "--requests", str(tmp_path / "j"))
    assert (1, True) == (status, "damage:" in out)


def test_a_machine_is_probed() -> None:
    """In the words of `probe`, and with a status for scripts."""
    found = probe()
    status = 0 if found.ready else 1
    assert (status, f"{found}\n", "") == call("probe")
    assert found.release == json.loads(call("-o", "json", "probe")[1])["release"]
