"""The answers: every one is an output, and each request has the one that it promises."""

import re
from typing import get_args

import ioasid.core
from ioasid.core import Answer, Event, Output, Refused, Request, Resync, Snapshot
from ioasid.core import _effects as effects
from tests.core.examples import OUTPUTS


def test_the_examples_leave_none_out() -> None:
    """There is an example of everything that comes from the allocator."""
    assert set(get_args(Output)) == {type(example) for example in OUTPUTS}


def test_what_comes_from_the_allocator() -> None:
    """It is an answer or a refusal, an event or a Resync, or an effect, and only one of them."""
    others = {Refused, Event, Resync, *get_args(effects.Effect)}
    assert set() == others & set(get_args(Answer))
    assert others | set(get_args(Answer)) == set(get_args(Output))


def test_every_answer_is_promised_by_a_request() -> None:
    """The docstrings of the requests name every answer there is; `Waiting` comes before one."""
    promised = {
        getattr(ioasid.core, re.findall(r"Answer: `(\w+)`", " ".join(kind.__doc__.split()))[0])
        for kind in get_args(Request)
    }
    assert promised == {*get_args(Answer)} - {ioasid.core.Waiting}
    assert Snapshot in promised
