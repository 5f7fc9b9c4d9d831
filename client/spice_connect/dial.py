"""The way to the server: one ssh, or on the server itself its gate."""

from spice_connect import ssh, workdir
from spice_connect.config import Config
from spice_connect.janitor import Janitor
from spice_connect.link import Link
from spice_connect.local import LocalLink
from spice_connect.ssh import Opening
from spice_connect.terminal import Terminal


def to_open(
    janitor: Janitor, config: Config, opening: Opening, terminal: Terminal, *, retry: bool
) -> Link:
    if config.is_local:
        return LocalLink(janitor, config, opening.words(), terminal)
    workdir.clear_socket(janitor.directory)
    local = workdir.socket_path(janitor.directory)
    argv = ssh.open_command(config, opening, local=local, retry=retry)
    return Link(janitor, argv, config.host, terminal)


def to_list(janitor: Janitor, config: Config, terminal: Terminal) -> Link:
    if config.is_local:
        return LocalLink(janitor, config, ssh.LIST, terminal)
    return Link(janitor, ssh.list_command(config), config.host, terminal)
