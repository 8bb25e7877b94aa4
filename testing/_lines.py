"""How a history is written: a line for each request, and what it set off below."""

from enum import Enum

from attrs import frozen
from msgspec import Struct

from ioasid.core import (
    Answer,
    AskAgain,
    Complete,
    Deliver,
    Effect,
    Event,
    Expel,
    IoasidError,
    LiveIoasid,
    Request,
    Resync,
    Statistics,
)

__all__ = ["Line"]


@frozen
class Line:
    """One request in a history: who asked what, the answer, and what it set off."""

    holder: str
    """Who asked, by holder name."""
    request: Request
    answer: Answer | IoasidError
    effects: tuple[Effect, ...]
    names: tuple[str, ...]
    """The holder that each effect is for, or "" for none."""

    def __str__(self) -> str:
        """The line as a report shows it."""
        answer = said_of(self.answer)
        told = "".join(
            f"\n{'':>16}   {_effect(effect, name)}"
            for effect, name in zip(self.effects, self.names, strict=True)
        )
        return f"{self.holder:>16}   {said_of(self.request)} -> {answer}{told}"


def said_of(message: object) -> str:
    if isinstance(message, IoasidError):
        return f"{type(message).__name__} ({message.code}: {message.message})"
    if isinstance(message, Statistics):
        return "Statistics(...)"
    if isinstance(message, LiveIoasid):
        spid = "" if message.spid is None else f" with spid {message.spid}"
        return f"{message.ioasid} {message.state.name}{spid}"
    if isinstance(message, Resync):
        return f"Resync of {_value(tuple(message))} (seq={message.seq})"
    if isinstance(message, Event):
        rest = "".join(
            f", {name}={getattr(message, name)!r}"
            for name in ("spid", "publisher")
            if getattr(message, name) is not None
        )
        return f"{message.kind.name} of {message.ioasid} (seq={message.seq}{rest})"
    if isinstance(message, Struct):
        defaults = message.__struct_defaults__
        fields = message.__struct_fields__
        known = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
        given = (
            f"{name}={_value(getattr(message, name))}"
            for name in fields
            if name not in known or known[name] != getattr(message, name)
        )
        return f"{type(message).__name__}({', '.join(given)})"
    return _value(message)


def _value(value: object) -> str:
    # The same text in every process: sets have no order of their own.
    match value:
        case Enum():
            return value.name
        case frozenset():
            return "{" + ", ".join(sorted(_value(each) for each in value)) + "}"
        case tuple():
            return "[" + ", ".join(said_of(each) for each in value) + "]"
        case _:
            return repr(value)


def _effect(effect: Effect, name: str) -> str:
    match effect:
        case Deliver(subscriptions, message):
            numbers = ", ".join(map(str, subscriptions))
            return f"tells {name} ({numbers}): {said_of(message)}"
        case Complete(ticket, answer):
            return f"answers ticket {ticket}: {said_of(answer)}"
        case AskAgain(ticket):
            return f"has ticket {ticket} asked again"
        case Expel(session):
            return f"expels session {session}"
        case _:
            return f"{type(effect).__name__.lower()}s the queue of {name} ({effect.subscription})"
