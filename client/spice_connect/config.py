"""The configuration files: the admin's, and the user's own, which overrides it."""

import fnmatch
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from spice_connect.errors import ConfigError, UsageError
from spice_connect.files import base_directory
from spice_connect.names import (
    LOCAL,
    VM_NAME,
    check_gate,
    check_host,
    check_pattern,
    check_run_dir,
)

#: The names that a connection file of remote-viewer(1) has; secure-attention is Ctrl-Alt-Del.
HOT_KEYS = (
    *("toggle-fullscreen", "release-cursor", "secure-attention"),
    *("zoom-in", "zoom-out", "zoom-reset", "smartcard-insert", "smartcard-remove"),
)
COMBINATION = re.compile(r"((shift|ctrl|alt)\+)*[A-Za-z0-9_]+", re.IGNORECASE)

SYSTEM_FILE = "/etc/spice-connect/config.toml"


class Config(NamedTuple):
    host: str = ""
    run_dir: str = "/run/spicetunnel"
    ssh: tuple[str, ...] = ("ssh",)
    viewer: tuple[str, ...] = ("remote-viewer",)
    hot_keys: Mapping[str, str] = MappingProxyType({})
    #: (VM name or pattern, host). The first match counts.
    hosts: tuple[tuple[str, str], ...] = ()
    gate: str = "/usr/bin/spicetunnel-gate"
    #: Whether the viewer needs a TCP port because it has no Unix sockets.
    viewer_port: bool = sys.platform == "win32"

    def at(self, host: str) -> Self:
        """These settings with `host` for every VM."""
        return self._replace(host=host, hosts=())

    def host_of(self, vm: str) -> str:
        """The host of this VM; empty if none is configured."""
        found = (host for pattern, host in self.hosts if fnmatch.fnmatchcase(vm, pattern))
        return next(found, self.host)

    def every_host(self) -> list[str]:
        """All configured hosts, each once, the default host first."""
        hosts = dict.fromkeys([self.host, *(host for _, host in self.hosts)])
        return [host for host in hosts if host]

    @property
    def is_local(self) -> bool:
        """Whether this machine is the KVM host itself."""
        return self.host == LOCAL

    @property
    def place(self) -> str:
        """The host, as messages call it."""
        return "this machine" if self.is_local else self.host


def user_file() -> str:
    return f"{base_directory('XDG_CONFIG_HOME', '~/.config')}/spice-connect/config.toml"


def load(*files: str) -> Config:
    """The settings of all files that exist. A later file overrides an earlier one.

    The `hosts` of a later file come first. Raises ConfigError.
    """
    settings: dict[str, Any] = {}
    for file in files or (SYSTEM_FILE, user_file()):
        earlier = settings.pop("hosts", ())
        settings |= _read(file)
        settings["hosts"] = settings.get("hosts", ()) + earlier
    return Config(**settings)


def _read(file: str) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8-sig") as stream:  # some editors write a BOM
            content = tomllib.loads(stream.read())
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
    """A command as a list of arguments, which no shell splits."""
    if not isinstance(value, list) or not value or not all(_is_argument(part) for part in value):
        raise UsageError(
            "not a list of arguments", 'write each argument in quotes: ["program", "argument"]'
        )
    return tuple(value)


def _is_argument(part: object) -> bool:
    return isinstance(part, str) and part != "" and "\0" not in part


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError("not true or false", "write it without quotes")
    return value


def _hot_keys(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UsageError("not a table", 'write { toggle-fullscreen = "shift+f11" }')
    for action, keys in value.items():
        if action not in HOT_KEYS:
            raise UsageError(f'unknown action "{action}"', f"known: {', '.join(HOT_KEYS)}")
        if not isinstance(keys, str) or not COMBINATION.fullmatch(keys):
            raise UsageError(f'{action}: not keys such as "shift+f11"', "shift, ctrl, alt, one key")
    return value


def _hosts(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise UsageError("not a table", '[hosts], and below it lines such as "lab-*" = "HOST"')
    pairs = [(check_pattern(vm), _host_for(vm, host)) for vm, host in value.items()]
    # Names before patterns. The sort is stable, so both keep the order of the file.
    return tuple(sorted(pairs, key=lambda pair: not VM_NAME.fullmatch(pair[0])))


def _host_for(vm: str, value: object) -> str:
    try:
        return _text(check_host)(value)
    except UsageError as error:
        raise UsageError(f'"{vm}": {error.reason}', error.hint) from error


_KEYS: dict[str, Callable[[object], object]] = {
    "host": _text(check_host),
    "hosts": _hosts,
    "run-dir": _text(check_run_dir),
    "gate": _text(check_gate),
    "ssh": _arguments,
    "viewer": _arguments,
    "viewer-port": _flag,
    "hot-keys": _hot_keys,
}
