"""`ioasid serve --fleet` and `ioasid fleet`: two services and an etcd, as an operator has them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import anyio
import pytest

from ioasid.fleet import Agent, Coordinator, HostUnreachable, open_store
from ioasid.fleet._command import fleet
from ioasid.service import connect_allocator
from ioasid.service._command import ioasid
from tests.fleet.stores import ETCD, Etcd, etcd, free_port
from tests.service.programs import PATIENCE, Program, a_program, call

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ETCD is None, reason="no etcd here; make fleet-test says how"),
]

ioasid.add_command(fleet)


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    """A store."""
    with etcd() as running:
        running.answers()
        yield running


@pytest.fixture
def url(server: Etcd) -> str:
    """Where the store is."""
    return f"http://127.0.0.1:{server.port}"


@contextmanager
def hosts(folder: Path, url: str, *names: str) -> Iterator[list[Program]]:
    """Services, each of a host of the fleet, which are alive."""
    with ExitStack() as stack:
        running = []
        for name in names:
            (folder / name).mkdir()
            options = ("--fleet", url, "--host", name)
            running.append(stack.enter_context(a_program(folder / name, arguments=options)))
        end = time.monotonic() + PATIENCE
        while not set(names) <= {each["host"] for each in shown(url, "hosts") if each["alive"]}:
            assert time.monotonic() < end
        yield running


def shown(url: str, *arguments: str) -> list[dict[str, object]]:
    """What a command of the fleet shows."""
    status, out, error = call("-o", "json", "fleet", "--fleet", url, *arguments)
    assert (0, "") == (status, error)
    found = json.loads(out)
    return found if isinstance(found, list) else [found]


def test_a_vm_moves_between_services(tmp_path: Path, url: str) -> None:
    """It is where it was moved to, its IDs with it, and every command says so."""
    with hosts(tmp_path, url, "a", "b") as (a, b):
        assert 0 == a.call("alloc-set", "vm-1", "8")[0]
        assert (0, "1\n", "") == a.call("alloc", "vm-1")
        assert (0, "2\n", "") == a.call("alloc", "vm-1")
        (record,) = shown(url, "where", "vm-1")
        assert ("a", "OWNED", 8) == (record["host"], record["phase"], record["quota"])
        status, _, error = b.call("alloc-set", "vm-1", "8")
        assert (1, True) == (status, error.startswith("ioasid: EEXIST: vm-1 is OWNED at a"))
        (moved,) = shown(url, "move", "vm-1", "b")
        assert ("b", "OWNED", 1) == (moved["host"], moved["phase"], moved["epoch"])
        assert 3 == a.call("set", "vm-1")[0]
        there = json.loads(b.call("-o", "json", "set", "vm-1")[1])
        assert [1, 2] == [each["ioasid"] for each in there]
        assert {"a": 0, "b": 1} == {each["host"]: each["vms"] for each in shown(url, "hosts")}
        assert [] == shown(url, "moves")
        assert "vm-1" in call("fleet", "--fleet", url, "where", "vm-1")[1]
        assert [] == shown(url, "moves")


def test_a_move_that_hangs_is_ended(tmp_path: Path, url: str) -> None:
    """While a device has not stopped it stands; `abort` lets the VM go on where it is."""
    with hosts(tmp_path, url, "a", "b") as (a, _):
        assert 0 == a.call("alloc-set", "vm-2", "8")[0]
        assert (0, "1\n", "") == a.call("alloc", "vm-2")
        device = [sys.executable, "-W", "error", "-c", DEVICE, str(tmp_path / "a" / "s")]
        command = [sys.executable, "-m", "ioasid", "fleet", "--fleet", url, "move", "vm-2", "b"]
        with subprocess.Popen(device, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            assert "bound\n" == driver.stdout.readline()
            with subprocess.Popen(command, stderr=subprocess.PIPE) as moving:
                assert "told\n" == driver.stdout.readline()
                (record,) = shown(url, "moves")
                assert ("vm-2", "PREPARE", "b") == (
                    record["vm"],
                    record["phase"],
                    record["other"],
                )
                (record,) = shown(url, "abort", "vm-2", "--reason", "it hangs")
                assert ("a", "OWNED", "it hangs") == (
                    record["host"],
                    record["phase"],
                    record["reason"],
                )
                assert 1 == moving.wait()
                assert moving.stderr is not None
                assert b"it hangs" in moving.stderr.read()
            driver.kill()
        (there,) = json.loads(a.call("-o", "json", "sets")[1])
        assert ("vm-2", "ACTIVE") == (there["token"], there["state"])


DEVICE = """
import sys, anyio
from ioasid.core import EventKind, Priority
from ioasid.service import connect_allocator

async def main():
    async with connect_allocator(sys.argv[1], holder="device") as session:
        kinds = {EventKind.BIND, EventKind.UNBIND, EventKind.FREE}
        async with session.subscribe(
            token="vm-2", kinds=kinds, hold=True, priority=Priority.DEVICE
        ) as events:
            await session.attach_spid(1, 101)
            async for event in events:
                if event.kind is EventKind.BIND:
                    print("bound", flush=True)
                else:
                    print("told", flush=True)
                    await anyio.sleep_forever()

anyio.run(main)
"""
"""A device whose driver never comes to an end with what it has to stop."""


def test_a_tenant_has_its_limit_on_all_hosts_together(tmp_path: Path, url: str) -> None:
    """Two hosts that create at once never have more, a move counts once, and frees give back."""
    assert [] == [each for each in shown(url, "limits") if each["tenant"] == "acme"]
    (record,) = shown(url, "limits", "acme", "24")
    assert (24, 0) == (record["limit"], record["used"])
    with hosts(tmp_path, url, "a", "b") as running:
        made: list[str] = []

        def make(host: Program, name: str) -> None:
            options = [sys.executable, "-m", "ioasid", "-s", str(host.folder / "s")]
            for number in range(4):
                token = f"acme-{name}{number}"
                done = subprocess.run(
                    [*options, "alloc-set", token, "8", "--group", "acme"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode == 0:
                    made.append(token)
                else:
                    assert "24 that it may have on all hosts" in done.stderr

        for host in running:
            anyio.run(alloc_group, host.folder / "s")
        threads = [Thread(target=make, args=each) for each in zip(running, "ab", strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 3 == len(made)
        assert 24 == shown(url, "limits", "acme")[0]["used"]
        token = made[0]
        target = "a" if shown(url, "where", token)[0]["host"] == "b" else "b"
        assert target == shown(url, "move", token, target)[0]["host"]
        assert 24 == shown(url, "limits", "acme")[0]["used"]
        assert 2 == call("fleet", "--fleet", url, "limits", "acme", "23")[0]
        assert 2 == call("fleet", "--fleet", url, "limits", "acme", "few")[0]
        there = running["ab".index(target)]
        anyio.run(free_set, there.folder / "s", token)
        # What is gone is given back before anybody is refused for it.
        status, _, error = there.call("alloc-set", "acme-last", "8", "--group", "acme")
        assert (0, "") == (status, error)
        assert 24 == shown(url, "limits", "acme")[0]["used"]


async def alloc_group(path: Path) -> None:
    """Make the tenant's group."""
    async with connect_allocator(path, holder="test") as session:
        await session.alloc_group("acme", 1000)


async def free_set(path: Path, token: str) -> None:
    """Free a set."""
    async with connect_allocator(path, holder="test") as session:
        await session.free_set((await session.find_set(token)).sid, wait=True)


def test_watching(tmp_path: Path, url: str) -> None:
    """Whoever watches sees what there is, each record that is written, and who leaves."""
    command = [sys.executable, "-m", "ioasid", "-o", "json", "fleet", "--fleet", url, "watch"]
    with hosts(tmp_path, url, "a") as (a,):
        assert 0 == a.call("alloc-set", "vm-w", "1")[0]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as watching:
            assert watching.stdout is not None
            seen: dict[str, object] = {}
            while seen.get("vm") != "vm-w":
                seen = json.loads(watching.stdout.readline())
            assert ("OWNED", "a") == (seen["phase"], seen["host"])
            assert 0 == a.call("alloc-set", "vm-x", "1")[0]
            while seen.get("vm") != "vm-x":
                seen = json.loads(watching.stdout.readline())
            a.end()
            # Hosts of other tests may be forgotten now, too.
            while ("a", False) != (seen.get("host"), seen.get("alive")):
                seen = json.loads(watching.stdout.readline())
            watching.kill()


def test_watching_in_words(tmp_path: Path, url: str) -> None:
    """What is said of a VM says which host is which; of a host, that it is gone."""
    command = [sys.executable, "-m", "ioasid", "fleet", "--fleet", url, "watch"]
    with hosts(tmp_path, url, "h") as (h,):
        assert 0 == h.call("alloc-set", "vm-words", "1")[0]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            try:
                for line in ("vm-words OWNED host h", "host h is not alive"):
                    while watching.stdout.readline().split()[1:] != line.split():
                        assert watching.poll() is None
                    if line.startswith("vm-words"):
                        h.end()
            finally:
                watching.kill()


def test_help_shows_examples() -> None:
    """Every command of the fleet explains itself, by an example, and each of its options."""
    for name, command in fleet.commands.items():
        status, out, _ = call("fleet", name, "--help")
        assert (0, True) == (status, "Example" in out), name
        assert not command.get_short_help_str(60).endswith("..."), name
        for option in command.params:
            assert option.param_type_name == "argument" or getattr(option, "help", None), name
    assert "Example" in call("fleet", "--help")[1]


NAMES = {
    "where no-vm": (3, "there is no VM 'no-vm' in the fleet"),
    "finish no-vm": (3, "there is no VM 'no-vm' in the fleet"),
    "abort no-vm": (3, "there is no VM 'no-vm' in the fleet"),
    "move no-vm n": (3, "there is no VM 'no-vm' in the fleet"),
    "move vm-n nowhere": (3, "there is no host 'nowhere' in the fleet; those that are alive: "),
    "move vm-n gone": (5, "the agent of 'gone' does not answer"),
    "limits no-tenant": (3, "there is no tenant 'no-tenant' in the fleet"),
    "where ": (2, "invalid value for 'VM': it is empty"),
    "finish ": (2, "invalid value for 'VM': it is empty"),
    "abort ": (2, "invalid value for 'VM': it is empty"),
    "move  n": (2, "invalid value for 'VM': it is empty"),
    "move vm-n ": (2, "invalid value for 'HOST': it is empty"),
    "move vm-n a/b": (2, "host is 'a/b'; pass a name without a slash"),
    "limits ": (2, "invalid value for '[TENANT]': it is empty"),
    "limits  5": (2, "invalid value for '[TENANT]': it is empty"),
    "limits no-tenant 0": (2, "0 is not in 1..4294967295"),
    "limits no-tenant x": (2, "'x' is no number, such as 17 or 0x11"),
    "abort vm-n --reason ": (2, "invalid value for '--reason': it is empty"),
    "where \udcff": (2, "vm is '\\udcff'; pass text of 1 to 255 bytes as UTF-8"),
    "move vm-n \udcff": (2, "host is '\\udcff'"),
    "limits \udcff 5": (2, "tenant is '\\udcff'"),
    f"where {'x' * 256}": (2, "vm is 'xxx"),
}


def test_every_name_is_looked_at(tmp_path: Path, url: str) -> None:
    """One that is unknown ends with 3, one that can be none with 2, and neither changes a thing."""

    def nowhere(host: str) -> Agent:
        raise HostUnreachable(host)

    async def leave_behind() -> None:
        async with open_store(url) as store:
            await Coordinator(store, nowhere).own("vm-gone", "gone")

    with hosts(tmp_path, url, "n") as (n,):
        assert 0 == n.call("alloc-set", "vm-n", "1")[0]
        anyio.run(leave_behind)
        before = shown(url, "where", "vm-n"), shown(url, "limits")
        for arguments, (expected, words) in NAMES.items():
            status, _, error = call("fleet", "--fleet", url, *arguments.split(" "))
            assert (expected, True) == (status, words in error), (arguments, error)
        assert before == (shown(url, "where", "vm-n"), shown(url, "limits"))


def test_a_host_whose_name_is_none(tmp_path: Path, url: str) -> None:
    """The service is not begun under it."""
    for name in ("", "a/b"):
        command = [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"), "serve"]
        done = subprocess.run(
            [*command, "--fleet", url, "--host", name], capture_output=True, text=True, check=False
        )
        words = "EINVAL: host is" if name else "invalid value for '--host': it is empty"
        assert (2, True) == (done.returncode, words in done.stderr), done.stderr


def test_a_store_that_does_not_answer() -> None:
    """It says so, with the status of what can't be reached."""
    url = f"http://127.0.0.1:{free_port()}"
    status, _, error = call("fleet", "--fleet", url, "hosts")
    assert (5, True) == (status, "does not answer" in error)
    status, _, error = call("fleet", "--fleet", "nowhere", "hosts")
    assert (2, True) == (status, "an etcd" in error)


def test_a_file_for_tls_that_does_not_do(tmp_path: Path) -> None:
    """One that is missing ends with 3, what is no certificate with 2; each is named."""
    text = tmp_path / "text"
    text.write_text("none")
    for name, expected, said in (
        ("missing", 3, f"ioasid: {tmp_path / 'missing'}: No such file"),
        ("text", 2, f"ioasid: EINVAL: ca is {text}; pass a file with certificates in PEM"),
    ):
        url = f"https://127.0.0.1:1?ca={tmp_path / name}"
        status, out, error = call("fleet", "--fleet", url, "hosts")
        assert (expected, "", said) == (status, out, error[: len(said)])


def test_an_empty_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that a variable does not name is no store of another fleet."""
    monkeypatch.setenv("IOASID_FLEET", "")
    status, _, error = call("fleet", "hosts")
    assert (2, True) == (status, "$IOASID_FLEET is empty; give it a value" in error)
