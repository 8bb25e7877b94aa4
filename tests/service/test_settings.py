"""What a file says that is no good: by its file, its key, what it has and what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from ioasid.service import WrongSetting, read_config, read_policy

RULE: Final = "[[rule]]\n"
OPERATOR: Final = f'{RULE}role = "operator"\n'
DRIVER: Final = f'{RULE}role = "driver"\nusers = [1]\n'
TENANT: Final = f'{RULE}role = "tenant"\nusers = [1]\n'
NAMES: Final = 'holders = ["kvm:"]\n'
TOKENS: Final = 'tokens = ["vm-*"]\n'
ROLES: Final = 'one of "operator", "driver", "tenant"'
SOME_USER: Final = "the name of a user that this machine has, or a number in 0..2^32-1"
SOME_TEXT: Final = "text of 1 to 255 bytes"
ROOMS: Final = (
    "socket, mode, group, policy, capacity, order, journal, on_reboot, metrics, fleet, host"
)

POLICIES: Final = {
    "rules = 5": (
        "rules",
        "an unknown key",
        "tables [[rule]] and nothing else (did you mean 'rule'?)",
    ),
    'rule = "x"': ("rule", '"x"', "tables, each below a line [[rule]]"),
    "rule = [5]": ("rule", "[5]", "tables, each below a line [[rule]]"),
    "[rule]": ("rule", "one table, [rule]", "[[rule]], in two brackets, for there may be more"),
    f"{OPERATOR}user = [1]": (
        "user in rule 1",
        "an unknown key",
        "one of role, users, groups, holders, tokens, group (did you mean 'users'?)",
    ),
    f"{OPERATOR}users = [1]\n{RULE}users = [1]": ("role in rule 2", "missing", ROLES),
    f'{RULE}role = "root"': ("role in rule 1", '"root"', ROLES),
    f"{RULE}role = 5": ("role in rule 1", "5", ROLES),
    f'{RULE}role = ["tenant"]': ("role in rule 1", '["tenant"]', ROLES),
    OPERATOR: (
        "users in rule 1",
        "missing, as is groups",
        "one of them, or leave the rule out",
    ),
    f"{OPERATOR}users = 5": ("users in rule 1", "5", 'a list, such as ["root", 1000]'),
    f'{OPERATOR}users = "root"': ("users in rule 1", '"root"', 'a list, such as ["root", 1000]'),
    f'{OPERATOR}users = ["no one"]': ("users in rule 1", 'a list with "no one"', SOME_USER),
    f'{OPERATOR}users = [""]': ("users in rule 1", 'a list with ""', SOME_USER),
    f'{OPERATOR}users = ["a\\u0000"]': ("users in rule 1", 'a list with "a\\u0000"', SOME_USER),
    f"{OPERATOR}users = [true]": ("users in rule 1", "a list with true", SOME_USER),
    f"{OPERATOR}users = [-1]": ("users in rule 1", "a list with -1", SOME_USER),
    f"{OPERATOR}users = [1.5]": ("users in rule 1", "a list with 1.5", SOME_USER),
    f"{OPERATOR}users = [4294967296]": ("users in rule 1", "a list with 4294967296", SOME_USER),
    f'{OPERATOR}groups = ["no one"]': (
        "groups in rule 1",
        'a list with "no one"',
        SOME_USER.replace("user", "group"),
    ),
    f"{OPERATOR}groups = {{}}": ("groups in rule 1", "a table", 'a list, such as ["kvm", 36]'),
    DRIVER: (
        "holders in rule 1",
        "missing",
        'what the holder names of a driver begin with, such as ["kvm:"]',
    ),
    f'{DRIVER}holders = "x"': ("holders in rule 1", '"x"', 'a list, such as ["kvm:"]'),
    f'{DRIVER}holders = [""]': (
        "holders in rule 1",
        'a list with ""',
        f'{SOME_TEXT} each, such as ["kvm:"]',
    ),
    f"{TENANT}{NAMES}": ("tokens in rule 1", "missing", 'those of a tenant, such as ["vm-*"]'),
    f"{TENANT}{TOKENS}": (
        "holders in rule 1",
        "missing",
        'what the holder names of a tenant begin with, such as ["kvm:"]',
    ),
    f"{TENANT}{NAMES}tokens = [1979-05-27]": (
        "tokens in rule 1",
        "a list with datetime.date(1979, 5, 27)",
        f'{SOME_TEXT} each, such as ["vm-*"]',
    ),
    f"{TENANT}{NAMES}tokens = ['{'x' * 256}']": (
        "tokens in rule 1",
        f'a list with "{"x" * 56}...',
        f'{SOME_TEXT} each, such as ["vm-*"]',
    ),
    f'{TENANT}{NAMES}{TOKENS}group = ""': (
        "group in rule 1",
        '""',
        f"{SOME_TEXT}, the name of a group of sets",
    ),
    f'{TENANT}{NAMES}{TOKENS}group = ["g"]': (
        "group in rule 1",
        '["g"]',
        f"{SOME_TEXT}, the name of a group of sets",
    ),
    f'{DRIVER}{NAMES}group = "g"': (
        "group in rule 1",
        "of no use to the role driver",
        "it for a tenant only",
    ),
    f"{OPERATOR}users = [1]\n{TOKENS}": (
        "tokens in rule 1",
        "of no use to the role operator",
        "it for a tenant only",
    ),
    f"{OPERATOR}users = [1]\n{NAMES}": (
        "holders in rule 1",
        "of no use to the role operator",
        "it for a driver or tenant only",
    ),
}

COUNT: Final = "a number in 1..2^31-1"
SECONDS: Final = "a number above 0 and below 2^31"
LEVELS: Final = 'one of "DEBUG", "INFO", "WARNING", "ERROR"'
OCTAL: Final = "0o0 to 0o777, such as 0o660"

CONFIGS: Final = {
    'sockets = "/s"': (
        "sockets",
        "an unknown key",
        f"one of {ROOMS}, log, limits (did you mean 'socket'?)",
    ),
    "limits = 5": ("limits", "5", "a table, below a line [limits]"),
    "[limits]\nrequests = 0": ("limits.requests", "0", COUNT),
    "[limits]\nrequests = 1.5": ("limits.requests", "1.5", COUNT),
    "[limits]\nwaits = true": ("limits.waits", "true", COUNT),
    '[limits]\nwaits = "5"': ("limits.waits", '"5"', COUNT),
    "limits.sessions = 2147483648": ("limits.sessions", "2147483648", COUNT),
    "[limits]\nhello_within = -1.5": ("limits.hello_within", "-1.5", SECONDS),
    "[limits]\nhello_within = nan": ("limits.hello_within", "nan", SECONDS),
    "[limits]\nhello_within = inf": ("limits.hello_within", "inf", SECONDS),
    "socket = 5": ("socket", "5", "a path"),
    'socket = "a\\u0000"': ("socket", '"a\\u0000"', "a path"),
    'policy = ""': ("policy", '""', "a path"),
    "journal = []": ("journal", "[]", "a path"),
    "metrics = false": ("metrics", "false", "a path"),
    "fleet = 2379": ("fleet", "2379", "a URL, such as http://127.0.0.1:2379"),
    "group = 5": ("group", "5", SOME_TEXT),
    'host = ""': ("host", '""', SOME_TEXT),
    'mode = "0660"': ("mode", '"0660"', OCTAL),
    "mode = 660": ("mode", "660", OCTAL),
    "mode = true": ("mode", "true", OCTAL),
    "capacity = 0": ("capacity", "0", "a number in 1..2^32-1"),
    'capacity = "1"': ("capacity", '"1"', "a number in 1..2^32-1"),
    "capacity = 4294967296": ("capacity", "4294967296", "a number in 1..2^32-1"),
    'log = "info"': ("log", '"info"', LEVELS),
    "log = 5": ("log", "5", LEVELS),
    'order = "RANDOM"': ("order", '"RANDOM"', 'one of "LOWEST", "CYCLIC"'),
    "[order]": ("order", "a table", 'one of "LOWEST", "CYCLIC"'),
    'on_reboot = "ask"': ("on_reboot", '"ask"', 'one of "keep", "forget"'),
    "on_reboot = []": ("on_reboot", "[]", 'one of "keep", "forget"'),
}

READERS: Final[dict[Callable[[Path], object], dict[str, tuple[str, str, str]]]] = {
    read_policy: POLICIES,
    read_config: CONFIGS,
}


@pytest.mark.parametrize(
    ("read", "text"), [(read, text) for read, table in READERS.items() for text in table]
)
def test_what_is_no_good(read: Callable[[Path], object], text: str, tmp_path: Path) -> None:
    """The message has the file, the key, what it has as TOML writes it, and what is allowed."""
    path = tmp_path / "file.toml"
    path.write_text(text + "\n")
    with pytest.raises(WrongSetting) as caught:
        read(path)
    key, found, expected = READERS[read][text]
    assert f"EINVAL: {path}: {key} is {found}; write {expected}" == str(caught.value)
    assert (str(path), key) == (caught.value.file, caught.value.key)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_toml(read: Callable[[Path], object], tmp_path: Path) -> None:
    """It is said where, and a key that is there twice is no TOML either."""
    path = tmp_path / "file.toml"
    for text, words in (
        (b"socket", "it is no TOML (Expected '=' after a key in a key/value pair"),
        (b"a = 1\na = 1\n", "it is no TOML (Cannot overwrite a value (at line 2, column"),
        (b"a = '\xff'", "it is no TOML (byte 5 is not UTF-8); write it in UTF-8"),
    ):
        path.write_bytes(text)
        with pytest.raises(WrongSetting) as caught:
            read(path)
        assert f"EINVAL: {path}: {words}" in str(caught.value)
