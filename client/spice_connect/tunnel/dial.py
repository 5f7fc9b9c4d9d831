"""The way to the server: one ssh, or on the server itself its gate."""

from spice_connect.config import Config
from spice_connect.tunnel import ssh
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.link import Link
from spice_connect.tunnel.local import LocalLink
from spice_connect.tunnel.nearend import NearEnd
from spice_connect.tunnel.ssh import Opening
from spice_connect.tunnel.sshlog import SshLog
from spice_connect.ui.progress import Progress
from spice_connect.ui.terminal import Terminal


def to_open(  # noqa: PLR0913 - the parts that meet here
    janitor: Janitor,
    config: Config,
    opening: Opening,
    terminal: Terminal,
    progress: Progress,
    *,
    retry: bool,
) -> Link:
    log = SshLog(janitor.directory, terminal.pass_on, progress.hear)
    if config.is_local:
        return LocalLink(janitor, config, opening.words(), terminal, log)
    by_port = config.viewer_port
    near = NearEnd.open_port(terminal) if by_port else NearEnd.private(janitor.directory)
    talk = ssh.Talk(log.path, terminal.verbosity)
    argv = ssh.open_command(config, opening, near=str(near), talk=talk, retry=retry)
    return Link(janitor, argv, config.host, terminal, log, near)


def to_list(
    janitor: Janitor, config: Config, terminal: Terminal, progress: Progress | None
) -> Link:
    """Without a `progress`, one of many: ssh asks nothing, and its words are for the curious."""
    heard = progress or terminal.verbosity
    show = terminal.pass_on if heard else _unheard
    log = SshLog(janitor.directory, show, progress.hear if progress else _is_no_news)
    if config.is_local:
        return LocalLink(janitor, config, ssh.LIST, terminal, log)
    talk = ssh.Talk(log.path, terminal.verbosity)
    argv = ssh.list_command(config, talk=talk, may_prompt=progress is not None)
    return Link(janitor, argv, config.host, terminal, log)


def _is_no_news(_message: str) -> bool:
    """Nor is it a line for anybody."""
    return False


def _unheard(_said: bytes) -> None:
    """Ssh's words: one sentence of ours a host is enough where there are several."""
