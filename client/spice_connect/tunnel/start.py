"""Starts connections: to open a VM, or to ask for the list."""

from spice_connect.config import Config
from spice_connect.flood import Bounds
from spice_connect.names import tunnel_socket
from spice_connect.tunnel import ssh
from spice_connect.tunnel.connection import FIRST_WORD_WITH_LOGIN, Connection
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.local import LocalConnection
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.tunnel.ssh import Opening
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.ui.terminal import Progress, Terminal

#: From this verbosity on, ssh's debug messages are shown.
DEBUG = 2


def to_open(  # noqa: PLR0913 - the parts that meet here
    janitor: Janitor,
    config: Config,
    opening: Opening,
    terminal: Terminal,
    progress: Progress,
    *,
    retry: bool,
    bounds: Bounds,
) -> Connection:
    """Start to open a VM. `retry`: after an outage. Raises ClientError, and OSError."""
    far = "" if config.is_local else tunnel_socket(config.run_dir)
    log = SshLog(
        janitor.directory,
        terminal.pass_on,
        progress.hear,
        far=far,
        is_verbose=terminal.verbosity >= DEBUG,
    )
    if config.is_local:
        return LocalConnection(janitor, config, opening.words(), terminal, log, bounds)
    by_port = config.viewer_port
    local_end = LocalEnd.open_port(terminal) if by_port else LocalEnd.private(janitor.directory)
    talk = ssh.Talk(log.path, terminal.verbosity)
    argv = ssh.open_command(config, opening, near=str(local_end), talk=talk, retry=retry)
    return Connection(
        *(janitor, argv, config.host, terminal, log, local_end),
        bounds=bounds,
        first_word=_first_word(config),
    )


def to_list(
    janitor: Janitor,
    config: Config,
    terminal: Terminal,
    progress: Progress | None,
    *,
    menu: int = 0,
) -> Connection:
    """Start to ask for the list of VMs. Raises ClientError.

    Without a `progress`, several hosts are asked at once: then ssh must not prompt, and its
    messages are shown only if the user wants details. With a `menu`, its number among those of this
    janitor, the connection stays, and opens the VM that is picked.
    """
    is_shown = progress is not None or terminal.verbosity > 0
    log = SshLog(
        janitor.directory,
        terminal.pass_on if is_shown else _drop,
        progress.hear if progress else _is_no_progress,
        far=tunnel_socket(config.run_dir) if menu and not config.is_local else "",
        is_verbose=terminal.verbosity >= DEBUG,
    )
    if config.is_local:
        words = ssh.MENU if menu else ssh.LIST
        return LocalConnection(janitor, config, words, terminal, log, takes_lines=menu > 0)
    talk, may_prompt = ssh.Talk(log.path, terminal.verbosity), progress is not None
    end = LocalEnd()
    if menu:
        end = LocalEnd.one_of_several(janitor.directory, menu)
        argv = ssh.menu_command(config, near=str(end), talk=talk, may_prompt=may_prompt)
    else:
        argv = ssh.list_command(config, talk=talk, may_prompt=may_prompt)
    return Connection(
        *(janitor, argv, config.host, terminal, log, end),
        show=None if is_shown else _drop,
        first_word=_first_word(config),
        takes_lines=menu > 0,
    )


def _first_word(config: Config) -> float | None:
    """Seconds until the first word is due; None if ssh will say when it has logged in."""
    return None if ssh.reports_login(config.ssh) else FIRST_WORD_WITH_LOGIN


def _is_no_progress(_message: str) -> bool:
    return False


def _drop(_line: bytes) -> None:
    """Ssh's messages are not shown for several hosts: one line of ours for each is enough."""
