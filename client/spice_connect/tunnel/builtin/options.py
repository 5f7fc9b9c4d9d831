"""What is asked for: by the command line of tunnel/ssh.py, and by the person's ssh_config(5)."""

import getopt
import os
import re
from glob import glob
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from spice_connect.tunnel import ssh
from spice_connect.tunnel.builtin.login import SshError

OPTIONS = (ssh.OPTIONS, ssh.SILENT_OPTIONS, ssh.RETRY_OPTIONS)

#: What asyncssh passes over though it matters, or takes for something else, below any `Host`. The
#: last one: asyncssh does not tell global files from the person's own.
REFUSED = re.compile(
    r"(?im)^\s*((RevokedHostKeys|KnownHostsCommand)[\s=]+(?!none\b)"
    r"|ProxyUseFdpass[\s=]+yes|IdentityAgent[\s=]+(SSH_AUTH_SOCK|\$[^{])"
    r"|IdentityFile[\s=]+none|(User|Global)KnownHostsFile.*[%$]).*"
    r"|\A(?![\s\S]*UserKnownHostsFile)[\s\S]*^\s*GlobalKnownHostsFile.*"
)
STRICT = re.compile(r"(?im)^\s*StrictHostKeyChecking[\s=]+yes\b")  # for any host: for all of them
INCLUDE = re.compile(r"(?im)^\s*Include[\s=]+(.+)")


class Place(NamedTuple):
    """A host to log in to, as the person names it. (): the configuration says."""

    host: str
    username: str | tuple[()] = ()
    port: int | tuple[()] = ()


class Arguments(NamedTuple):
    place: Place
    command: str
    log: str
    config: str | None  # a file in place of the usual ones, or "none"
    forward: str  # NEAR:FAR, where NEAR is a path or HOST:PORT; "": nothing
    options: dict[str, str]
    verbosity: int


def parse(words: list[str]) -> Arguments:
    """Raises SshError for what the built-in ssh does not know."""
    try:
        given, (host, *command) = getopt.getopt(words, "TaxvE:F:L:o:p:")
        flags, options = dict(given), {v.partition("=")[::2] for flag, v in given if flag == "-o"}
        if unknown := options.difference(*map(dict.items, OPTIONS)):
            raise ValueError(unknown)
        (user, _, name), port = host.rpartition("@"), flags.get("-p")
        plain = Place(name, user or (), int(port) if port else ())
        place = uri(host) if host.startswith("ssh://") else plain
    except (getopt.GetoptError, ValueError) as error:
        raise SshError("configuration", f"the built-in ssh does not know this: {error}") from error
    log, config, forward = flags.get("-E", "/dev/stderr"), flags.get("-F"), flags.get("-L", "")
    verbosity = sum(flag == "-v" for flag, _ in given)
    return Arguments(place, " ".join(command), log, config, forward, dict(options), verbosity)


def uri(text: str) -> Place:
    """Also one host of a ProxyJump. Raises ValueError."""
    parts = urlsplit(f"ssh://{text.removeprefix('ssh://')}")
    return Place(parts.hostname or "", unquote(parts.username or "") or (), parts.port or ())


def config_files(config: str | None) -> tuple[list[str], bool]:
    """The files, the person's own first, and whether new hosts are refused. Raises SshError."""
    usual = (os.path.expanduser("~/.ssh/config"), "/etc/ssh/ssh_config")
    files = [file for file in usual if os.path.exists(file)] if config is None else [config]
    files, is_strict = [] if config == "none" else files, False
    included = [*files]
    for file in included:
        info = os.stat(file)
        if config is None and (info.st_uid not in (0, os.getuid()) or info.st_mode & 0o022):
            raise SshError("configuration", f"others can write to {file}: chmod 600 is needed")
        with open(file, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
        if refused := REFUSED.search(text):
            line = refused[0].splitlines()[-1].strip()
            raise SshError("configuration", f"not in the built-in ssh: {line}")
        is_strict = is_strict or bool(STRICT.search(text))
        for word in " ".join(INCLUDE.findall(text)).replace('"', "").split():
            path = os.path.join(os.path.expanduser("~/.ssh"), os.path.expanduser(word))
            included += {*filter(os.path.isfile, glob(path))}.difference(included)
    return files, is_strict
