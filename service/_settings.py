"""Settings: what a file in TOML says; an error names the file, the key and what it has."""

import json
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NoReturn

from attrs import frozen

from ioasid.core._errors import shown
from ioasid.service._errors import WrongSetting

__all__: list[str] = []

TEXT: Final = "text of 1 to 255 bytes"


@frozen
class Settings:
    """A table of a file."""

    file: str
    found: dict[str, Any]
    name: str = "{}"
    """How a key of this table is called."""

    def refuse(self, key: str, found: str, expected: str) -> NoReturn:
        """Raise `WrongSetting` for a key."""
        raise WrongSetting(self.file, self.name.format(key), found, expected)

    def wrong(self, key: str, value: object, expected: str) -> NoReturn:
        """Raise it for a value that a key may not have."""
        self.refuse(key, written(value), expected)

    def refuse_unknown(self, keys: Iterable[str]) -> None:
        """Raise it for a key that there is not."""
        known = tuple(keys)
        for key in self.found:
            if key not in known:
                self.refuse_key(key, known, "one of " + ", ".join(known))

    def refuse_key(self, key: str, known: Iterable[str], expected: str) -> NoReturn:
        """Raise it for a key that there is not, and say which one may have been meant."""
        close = get_close_matches(key, tuple(known), 1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        self.refuse(key, "an unknown key", expected + meant)

    def check(self, key: str, is_good: Any, expected: str) -> None:
        """Raise it for a value that is not good, if there is one."""
        if key in self.found and not is_good(self.found[key]):
            self.wrong(key, self.found[key], expected)

    def list_of(self, key: str, example: str) -> list[Any]:
        """Return a list, empty unless told."""
        self.check(key, lambda value: isinstance(value, list), f"a list, such as {example}")
        found: list[Any] = self.found.get(key, [])
        return found


def read_settings(path: str | Path) -> Settings:
    """Read a file. Raises OSError, and `WrongSetting` for what is no TOML."""
    try:
        return Settings(str(path), tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        found, expected = str(error), "key = value, and each key once"
    except UnicodeDecodeError as error:
        found, expected = f"byte {error.start} is not UTF-8", "it in UTF-8"
    raise WrongSetting(str(path), "it", f"no TOML ({found})", expected)


def is_text(value: object) -> bool:
    """Tell whether a value can be a name."""
    return is_path(value) and len(str(value).encode()) <= 255


def is_path(value: object) -> bool:
    """Tell whether a value can be a path."""
    return isinstance(value, str) and value != "" and "\0" not in value


def written(value: object) -> str:
    """Return a value as TOML writes it, as far as it is short."""
    match value:
        case bool() | str():
            return shorter(json.dumps(value, ensure_ascii=False))
        case list():
            return shorter(f"[{', '.join(map(written, value))}]")
        case dict():
            return "a table"
        case int() | float():
            return shorter(str(value))
        case _:
            return shown(value)


def shorter(text: str) -> str:
    """Return the beginning of a text that is long."""
    return text if len(text) <= 60 else text[:57] + "..."
