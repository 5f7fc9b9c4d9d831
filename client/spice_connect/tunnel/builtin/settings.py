"""The person's ssh_config(5), as far as asyncssh knows it, and the few keys that we add."""

import getpass
import os
import stat
from collections.abc import Callable

from asyncssh.config import SSHClientConfig

from spice_connect.tunnel.builtin.log import SshError
from spice_connect.tunnel.builtin.words import Place

SYSTEM_FILE = "/etc/ssh/ssh_config"
USER_FILE = "~/.ssh/config"

_BOOL, _INT, _TEXT = (
    SSHClientConfig._set_bool,
    SSHClientConfig._set_int,
    SSHClientConfig._set_string,
)


class Settings(SSHClientConfig):
    """asyncssh's own reader; it passes over these, since they are about a person who is asked."""

    _handlers: dict[str, tuple[str, Callable[..., None]]] = {  # noqa: RUF012 - as in its base
        **SSHClientConfig._handlers,
        "batchmode": ("BatchMode", _BOOL),
        "hashknownhosts": ("HashKnownHosts", _BOOL),
        "numberofpasswordprompts": ("NumberOfPasswordPrompts", _INT),
        "stricthostkeychecking": ("StrictHostKeyChecking", _TEXT),
    }
    _percent_expand: set[str] = {  # noqa: RUF012 - as in its base
        *SSHClientConfig._percent_expand,
        "UserKnownHostsFile",
        "GlobalKnownHostsFile",
    }

    def text(self, key: str, default: str) -> str:
        value = self.get(key)
        return value if isinstance(value, str) else default

    def number(self, key: str, default: int) -> int:
        value = self.get(key)
        return value if isinstance(value, int) else default

    def paths(self, key: str, *default: str) -> list[str]:
        """With ~ expanded. Empty where it says `none`."""
        value = self.get(key)
        paths = value if isinstance(value, list) else default
        return [os.path.expanduser(path) for path in paths]


def files(config: str | None) -> list[str]:
    """The first value that is read counts, so the person's own file comes first."""
    if config is not None:
        return [] if config == "none" else [config]
    own = os.path.expanduser(USER_FILE)
    if os.path.exists(own):
        _check(own)
    return [file for file in (own, SYSTEM_FILE) if os.path.exists(file)]


def _check(file: str) -> None:
    info = os.stat(file)
    if info.st_uid not in (0, os.getuid()) or stat.S_IMODE(info.st_mode) & 0o022:
        raise SshError(f"Bad owner or permissions on {file}")


def read(config_files: list[str], place: Place) -> Settings:
    asked = (place.user or (), place.host, place.port or ())
    try:
        loaded = Settings.load(
            None, list(config_files), False, False, False, getpass.getuser(), *asked
        )
    except (OSError, ValueError) as error:
        raise SshError(str(error)) from error
    assert isinstance(loaded, Settings)  # noqa: S101 - said to the type checker
    return loaded
