"""The way to the server: one ssh, or on the server itself its gate."""

from spice_connect import ssh, workdir
from spice_connect.config import Config
from spice_connect.janitor import Janitor
from spice_connect.link import Link
from spice_connect.local import LocalLink
from spice_connect.ssh import Opening
from spice_connect.sshlog import SshLog
from spice_connect.terminal import Terminal


def to_open(
    janitor: Janitor, config: Config, opening: Opening, terminal: Terminal, *, retry: bool
) -> Link:
    log = SshLog(janitor.directory, terminal.pass_on)
    if config.is_local:
        return LocalLink(janitor, config, opening.words(), terminal, log)
    workdir.clear_socket(janitor.directory)
    local = workdir.socket_path(janitor.directory)
    argv = ssh.open_command(config, opening, local=local, log=log.path, retry=retry)
    return Link(janitor, argv, config.host, terminal, log)


def to_list(janitor: Janitor, config: Config, terminal: Terminal, *, may_prompt: bool) -> Link:
    heard = may_prompt or terminal.verbose
    log = SshLog(janitor.directory, terminal.pass_on if heard else _unheard)
    if config.is_local:
        return LocalLink(janitor, config, ssh.LIST, terminal, log)
    argv = ssh.list_command(config, log=log.path, may_prompt=may_prompt)
    return Link(janitor, argv, config.host, terminal, log)


def _unheard(_said: bytes) -> None:
    """Ssh's words: one sentence of ours a host is enough where there are several."""
