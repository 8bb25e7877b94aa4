"""Messages from a newer side; `test_connection` has what of them arrives."""

from typing import Any

import msgspec
import pytest

from ioasid.core import MalformedMessage, Output, Request
from ioasid.service import UnknownRequest
from ioasid.service._forgiving import pruned, request_of
from tests.core.examples import OUTPUTS, REQUESTS


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
def test_every_request_survives_more_fields(request_: Request) -> None:
    """It is made again from what it looks like, with or without what nobody knows."""
    found = msgspec.to_builtins(request_)
    assert request_ == request_of(found)
    assert request_ == request_of({**found, "new": {"deep": [1]}})


def more(value: Any) -> Any:
    """The same with an unknown field in every map that has a field of a message's."""
    if isinstance(value, dict):
        return {name: more(each) for name, each in value.items()} | {"unknown to all": 5}
    if isinstance(value, list):
        return [more(each) for each in value]
    return value


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda each: type(each).__name__)
def test_every_output_survives_more_fields(output: Output) -> None:
    """As deep as they may be."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(output))
    expected = msgspec.convert(found, Output)
    if type(output).__name__ in {"IoasidRecord", "Refused"} or "Snapshot" in type(output).__name__:
        # A map of names has no fields of which one could be unknown.
        found["new"] = 5
    else:
        found = more(found)
    assert expected == msgspec.convert(pruned(found, Output), Output)


def test_what_is_none() -> None:
    """It is refused by what is wrong with it."""
    with pytest.raises(UnknownRequest, match=r"ENOSYS.*'Nap'"):
        request_of({"type": "Nap"})
    nothing: tuple[Any, ...] = (None, [], {}, {"type": []}, {"type": "Alloc"})
    for found in nothing:
        with pytest.raises(MalformedMessage):
            request_of(found)
