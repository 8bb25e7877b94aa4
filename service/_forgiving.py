"""Messages from a newer side: what is not known in them is left out, and the rest is taken.

The messages of `ioasid.core` forbid unknown fields, which in process are mistakes. On a wire they
are what a newer side says besides. Only what does not decode by itself comes here.
"""

from functools import cache
from typing import Any, Final, cast, get_args, get_type_hints

import msgspec
from msgspec import inspect

from ioasid.core import MalformedMessage, Message, Request
from ioasid.core._errors import shown
from ioasid.service._errors import UnknownRequest

__all__: list[str] = []

_REQUESTS: Final[dict[str, type[Message]]] = {each.__name__: each for each in get_args(Request)}


def request_of(found: object) -> Request:
    """Make a request of what was decoded without a type; unknown fields are left out.

    A field of the wrong type is left as it is, for the allocator to refuse by its name. Raises
    `UnknownRequest`, and `MalformedMessage` for what is no request or lacks a field.
    """
    if not isinstance(found, dict):
        raise MalformedMessage("request", f"{shown(found)} is no map with a type")
    name = found.get("type")
    if not isinstance(name, str):
        raise MalformedMessage("request", f"type is {shown(name)} and not the name of a request")
    kind = _REQUESTS.get(name)
    if kind is None:
        raise UnknownRequest(name[:64])
    hints = _hints(kind)
    try:
        given = {each: _converted(found[each], hints[each]) for each in hints if each in found}
        return cast(Request, kind(**given))
    except TypeError as error:
        raise MalformedMessage("request", f"{name}: {error}") from None


@cache
def _hints(kind: type[Message]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each: hints[each] for each in kind.__struct_fields__}


def _converted(value: object, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint)
    except (msgspec.ValidationError, ValueError, TypeError):
        return value


def pruned(found: Any, union: Any) -> Any:
    """Return what was decoded without a type, without what `union` does not know of."""
    return _pruned(found, inspect.type_info(union))


def _pruned(found: Any, kind: inspect.Type) -> Any:
    match kind:
        case inspect.StructType(array_like=True) if isinstance(found, list):
            pairs = zip(found, kind.fields, strict=False)
            return [_pruned(value, each.type) for value, each in pairs]
        case inspect.StructType() if isinstance(found, dict):
            known = {each.encode_name: each.type for each in kind.fields}
            if kind.tag_field is not None:
                known[kind.tag_field] = inspect.AnyType()
            return {name: _pruned(found[name], known[name]) for name in known if name in found}
        case inspect.UnionType(types=types):
            tag = found.get("type") if isinstance(found, dict) else None
            for each in types:
                if isinstance(each, inspect.StructType) and each.tag in (tag, None):
                    return _pruned(found, each)
                if isinstance(each, inspect.VarTupleType | inspect.TupleType):
                    return _pruned(found, each)
            return found
        case inspect.VarTupleType(item_type=item) if isinstance(found, list):
            return [_pruned(each, item) for each in found]
        case inspect.DictType(value_type=item) if isinstance(found, dict):
            return {name: _pruned(each, item) for name, each in found.items()}
        case _:
            return found
