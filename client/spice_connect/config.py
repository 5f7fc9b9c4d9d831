"""The configuration files: the admin's, and over it the person's own."""

import os
import tomllib
from collections.abc import Callable
from typing import Any, NamedTuple

from spice_connect.errors import ConfigError, UsageError
from spice_connect.names import LOCAL, check_gate, check_host, check_run_dir

SYSTEM_FILE = "/etc/spice-connect/config.toml"


class Config(NamedTuple):
    host: str = ""
    run_dir: str = "/run/spicetunnel"
    ssh: tuple[str, ...] = ("ssh",)
    viewer: tuple[str, ...] = ("remote-viewer",)
    gate: str = "/usr/bin/spicetunnel-gate"

    @property
    def is_local(self) -> bool:
        """Whether this machine is the KVM host itself."""
        return self.host == LOCAL

    @property
    def place(self) -> str:
        """The host, as a person calls it."""
        return "this machine" if self.is_local else self.host


def user_file() -> str:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification: a relative path there is to be ignored.
    base = base if os.path.isabs(base) else os.path.expanduser("~/.config")
    return f"{base}/spice-connect/config.toml"


def load(*files: str) -> Config:
    """The settings of all files that exist; in a later one they win."""
    settings: dict[str, Any] = {}
    for file in files or (SYSTEM_FILE, user_file()):
        settings |= _read(file)
    return Config(**settings)


def _read(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            content = tomllib.load(stream)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{file}: {error}", "the file is TOML: key = value lines") from error
    return dict(_setting(file, key, value) for key, value in content.items())


def _setting(file: str, key: str, value: object) -> tuple[str, object]:
    if key not in _KEYS:
        raise ConfigError(f'{file}: unknown key "{key}"', f"known keys: {', '.join(_KEYS)}")
    try:
        return key.replace("-", "_"), _KEYS[key](value)
    except UsageError as error:
        raise ConfigError(f"{file}: {key}: {error.reason}", error.hint) from error


def _text(check: Callable[[str], str]) -> Callable[[object], str]:
    def checked(value: object) -> str:
        if not isinstance(value, str):
            raise UsageError("not a text", 'write it in quotes: "..."')
        return check(value)

    return checked


def _arguments(value: object) -> tuple[str, ...]:
    """A command as its list of arguments: no shell ever splits it, so we do not either."""
    if not isinstance(value, list) or not value or not all(_is_argument(part) for part in value):
        raise UsageError(
            "not a list of arguments", 'write each argument in quotes: ["program", "argument"]'
        )
    return tuple(value)


def _is_argument(part: object) -> bool:
    return isinstance(part, str) and part != "" and "\0" not in part


_KEYS: dict[str, Callable[[object], object]] = {
    "host": _text(check_host),
    "run-dir": _text(check_run_dir),
    "gate": _text(check_gate),
    "ssh": _arguments,
    "viewer": _arguments,
}
