"""A client that is written from the page of the protocol alone: sockets, and msgpack by hand."""

import json
import os
import re
import socket
import struct
from errno import errorcode
from pathlib import Path
from typing import Any, get_args

import pytest

from ioasid.service import ClientFrame, ServerFrame
from ioasid.service._errors import _OWN
from tests.service.programs import a_program

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "protocol.md"


def packed(value: Any) -> bytes:
    """A value as msgpack, as its specification says."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return struct.pack(">Bq", 0xD3, value)
        case str():
            data = value.encode()
            return struct.pack(">BH", 0xDA, len(data)) + data
        case list():
            return struct.pack(">BH", 0xDC, len(value)) + b"".join(map(packed, value))
        case dict():
            pairs = (packed(name) + packed(each) for name, each in value.items())
            return struct.pack(">BH", 0xDE, len(value)) + b"".join(pairs)
        case _:
            raise TypeError(value)


class Client:
    """A blocking client: JSON comes back when JSON was asked last."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(os.fspath(path))
        self.file = self.sock.makefile("rb")

    def line(self, frame: str) -> None:
        """Send a line."""
        self.sock.sendall(frame.encode() + b"\n")

    def frame(self, **fields: Any) -> None:
        """Send a frame."""
        data = packed(fields)
        self.sock.sendall(struct.pack(">I", len(data)) + data)

    def receive(self) -> Any:
        """The next line."""
        return json.loads(self.file.readline())

    def close(self) -> None:
        """End."""
        self.file.close()
        self.sock.close()


@pytest.mark.slow
def test_the_conversation_of_the_page(tmp_path: Path) -> None:
    """What the page shows is what a service says, but for the name of its epoch."""
    blocks = re.findall(r"```\n(C: .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[:2]
    with a_program(tmp_path) as program:
        client = Client(tmp_path / "s")
        for each in "".join(blocks).splitlines():
            side, frame = each.split(": ", 1)
            if side == "C":
                client.line(frame)
                continue
            found = client.receive()
            expected = json.loads(frame)
            if "epoch" in expected:
                assert len(expected.pop("epoch")) == len(found.pop("epoch"))
            assert expected == found

        # Requests as msgpack; the last frame decides about the form of the answers.
        client.frame(type="Ask", id=9, session=2, request={"type": "Get", "ioasid": 2})
        client.frame(type="Ask", id=10, session=2, request={"type": "Subscribe", "sid": 0})
        client.line('{"type":"Ask","id":11,"session":2,"request":{"type":"Free","ioasid":2}}')
        while client.file.peek(1)[:1] == b"\0":
            client.file.read(int.from_bytes(client.file.read(4), "big"))
        frames: list[Any] = []
        while not frames or frames[-1]["type"] != "Deliver":
            frames.append(client.receive())
        assert {"type": "Released", "reclaimed": False} == frames[-2]["answer"]
        event = frames[-1]["message"]
        assert ("FREE", 2) == (event["kind"], event["ioasid"])
        number = frames[-1]["subscriptions"][0]

        # The acknowledgement of the page, and what it sets free.
        acknowledge = {"type": "Acknowledge", "messages": [[number, event["seq"]]]}
        client.line(json.dumps({"type": "Ask", "session": 2, "request": acknowledge}))
        client.line('{"type":"Ask","id":12,"session":2,"request":{"type":"Put","ioasid":2}}')
        assert {"type": "Released", "reclaimed": True} == client.receive()["answer"]

        # Leaving, or not: without it the holder is suspended if it has anything.
        client.line('{"type":"Ask","id":13,"session":2,"request":{"type":"CloseSession"}}')
        while (found := client.receive())["type"] != "Answered":
            pass
        assert {"type": "Done"} == found["answer"]
        client.close()
        assert 0 == json.loads(program.call("-o", "json", "status")[1])["suspended"]


def test_every_frame_and_error_is_on_the_page() -> None:
    """With all of its fields."""
    text = PAGE.read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}
    for kind in (*get_args(ClientFrame), *get_args(ServerFrame)):
        assert kind.__name__ in rows
        if kind.__name__ != "Refused":
            for field in kind.__struct_fields__:
                assert f"`{field}`" in rows[kind.__name__], (kind, field)
    of_clients = {"ConnectionFailed", "OutcomeUnknown", "RefusedByServer", "SocketDenied"}
    for name, error in _OWN.items():
        if name not in of_clients:
            assert f"| {errorcode[error.errno]} |" in rows[name], name
