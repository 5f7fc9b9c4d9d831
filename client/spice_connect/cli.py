"""The command line of spice-connect."""

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from spice_connect import config, signals
from spice_connect.config import Config
from spice_connect.errors import ClientError, Interrupted, MachineError, UsageError
from spice_connect.names import LOCAL, check_host, check_run_dir, check_vm, is_uri, parse_uri
from spice_connect.options import Command, Options, show_completion, show_version
from spice_connect.reconnect import Begun, open_vm
from spice_connect.tunnel.janitor import Janitor
from spice_connect.tunnel.local import is_here
from spice_connect.tunnel.ssh import Opening
from spice_connect.ui import icon
from spice_connect.ui.terminal import Terminal
from spice_connect.viewer.command import ViewerCommand, parse_monitors
from spice_connect.viewer.process import check

if TYPE_CHECKING:
    from spice_connect.ui.windows import Windows
    from spice_connect.vms.hosts import Hosts
    from spice_connect.vms.row import Pick, Row

EPILOG = """\b
Exit codes:
  0    the viewer was closed
  64   usage
  69   the VM is off, the host or the viewer is not available, or the connection was lost for good
  70   a fault in spicetunnel, here or on the server
  71   an operating system error on this machine
  75   busy: somebody else has the VM's seat
  76   no spicetunnel answered on the host, or not as one does
  77   not permitted
  78   the configuration is wrong
  130  Ctrl-C (128 + the signal's number)

\b
When the VM restarts (within a minute), the network drops or the host reboots (within five), the
window comes back by itself. With --no-viewer the same path is printed again.

\b
Configuration: /etc/spice-connect/config.toml, then ~/.config/spice-connect/config.toml
  host = "alice@kvm"                 or SPICE_CONNECT_HOST, or --host
  host = "local:"                    this machine is the KVM host: no ssh. The default if no host
                                     is named and a broker runs here
  gate = "/usr/bin/spicetunnel-gate" of this machine
  run-dir = "/run/spicetunnel"       of the server
  ssh = ["ssh"]                      a wrapper script must exec its ssh
  viewer = ["remote-viewer"]         the connection file is added as the last argument; or use
                                     {file}, {socket}, {title}: ["spicy", "--uri=spice+unix://{socket}"]
  viewer-port = true                 for a viewer without Unix sockets, such as one for Windows: a
                                     {port} instead, which everybody on this machine can reach
  hot-keys = {toggle-fullscreen = "shift+f11"}     and others of remote-viewer(1)
  [hosts]                            last in the file: VMs that are on other hosts
  vm1 = "kvm2"                       names count before patterns;
  "lab-*" = "lab.example.org"        of the patterns, the first match counts
"""


def main() -> None:
    try:
        signals.install()
        _let_ourselves_in()
        _open_standard_streams()
        code = run(sys.argv[1:])
    except Interrupted as interruption:
        Terminal().end_line()  # after the ^C that the terminal echoes
        code = interruption.exit_code
    sys.exit(code)


def run(args: list[str]) -> int:
    """Run the command line; return the exit code. Every failure is reported here."""
    try:
        return int(command.main(args, "spice-connect", standalone_mode=False) or os.EX_OK)
    except ClientError as error:
        return _fail(error)
    except click.ClickException as error:
        Terminal().tell(_our_style(error.format_message()), "spice-connect --help")
        return os.EX_USAGE
    except OSError as error:
        return _fail(MachineError(error))


def _fail(error: ClientError) -> int:
    Terminal().fail(error)
    _announce(error)
    return error.exit_code


def _announce(error: ClientError) -> None:
    """Show a notification if there is no terminal and none was shown yet."""
    if icon.without_terminal() and not error.announced:
        from spice_connect import notify  # noqa: PLC0415 - rarely used

        notify.show_alone(error.reason, error.hint)


def _let_ourselves_in() -> None:
    """Have the umask leave users what is theirs: else our own directory would be closed to us."""
    umask = os.umask(0o077)
    os.umask(umask & ~0o700)


def _open_standard_streams() -> None:
    """Open descriptors 0 to 2 if they are closed, so that no other file gets their numbers.

    Printing never fails for a character that the locale lacks.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _our_style(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")


@click.command(
    cls=Command,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 90},
)
@click.argument("vm", required=False)
@click.option(
    "--host", envvar="SPICE_CONNECT_HOST", help="[USER@]HOST[:PORT], an ssh alias, or local:"
)
@click.option("--take-over", is_flag=True, help="Take the VM's seat from who has it now.")
@click.option("--wait", is_flag=True, help="Wait for a VM that is off, in use, or opens later.")
@click.option(
    "--no-reconnect",
    is_flag=True,
    help="End when the VM stops or the network drops, instead of bringing the window back.",
)
@click.option("--full-screen", is_flag=True, help="Let the VM fill the screen.")
@click.option(
    "--monitors",
    metavar="N[,N...]",
    callback=lambda _context, _option, text: parse_monitors(text) if text is not None else (),
    help="In full screen, show the VM's first display on monitor N, its second on the next N.",
)
@click.option(
    "--no-viewer", is_flag=True, help="Print the path of the socket and keep the tunnel open."
)
@click.option(
    "--desktop-entry",
    is_flag=True,
    help="Put an icon of VM into your menu; without VM, of your list, and register for our URIs.",
)
@click.option(
    "--completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    is_eager=True,
    expose_value=False,
    callback=show_completion,
    help="Print the completion script for that shell.",
)
@click.option(
    "-l", "--list", "as_list", is_flag=True, help="List your VMs, without a menu to pick from."
)
@click.option("--window", is_flag=True, help="Show the list, messages and questions in windows.")
@click.option("--json", "as_json", is_flag=True, help="Print the list of VMs as JSON.")
@click.option("--run-dir", metavar="DIR", help="The server's run directory.")
@click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Show the commands and the server's other output; -vv: also ssh's debug output.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version.",
)
def command(**given: Any) -> int:
    """Open the desktop of VM. Without VM, list the VMs you may use and let you pick one."""
    options = Options(**given)
    options.check()
    host, vm = _place(options)
    if options.desktop_entry:
        _put_desktop_entry(host, vm, options)
        return os.EX_OK
    if icon.without_terminal() or options.window:
        icon.ask_on_the_desktop()
    terminal = Terminal(quiet=options.quiet, verbosity=options.verbose)
    if options.window:
        return _in_windows(host, options, terminal)
    click.get_current_context().call_on_close(lambda: terminal.show(""))
    only_list = options.as_list or options.as_json or not (vm or terminal.can_pick())
    if only_list:
        options.check_needs_no_vm()
    settings, answered = _settings(vm, host, options.run_dir, terminal)
    if only_list:
        from spice_connect.vms.listing import show_vms  # noqa: PLC0415 - not needed if a VM is named

        code = show_vms(settings, terminal, as_json=options.as_json)
        answered()
        return code
    viewer_command = None if options.no_viewer else _viewer_command(settings, options)
    if vm is None:
        return _pick_and_open(settings, options, terminal, viewer_command, Begun(answered=answered))
    _check_local(settings, viewer_command)
    opening = Opening(vm, take_over=options.take_over, wait=options.wait)
    open_vm(
        *(settings, opening, terminal, viewer_command),
        reconnect=not options.no_reconnect,
        begun=Begun(answered=answered),
    )
    return os.EX_OK


def _in_windows(host: str | None, options: Options, terminal: Terminal) -> int:
    """As `command`, for a user without a terminal. Every failure is reported here."""
    from spice_connect.ui import windows as ui  # noqa: PLC0415 - for an icon

    windows = ui.find()
    terminal.asks_in_windows = "SSH_ASKPASS" in os.environ
    try:
        settings, answered = _settings(None, host, options.run_dir, terminal, windows)
        viewer_command = _viewer_command(settings, options)
        before = Begun(answered=answered, windows=windows)
        return _pick_and_open(settings, options, terminal, viewer_command, before)
    except ClientError as error:
        terminal.fail(error)
        windows.message(error.reason, error.hint)
        return error.exit_code


def _pick_and_open(
    settings: Config,
    options: Options,
    terminal: Terminal,
    viewer_command: ViewerCommand | None,
    before: Begun,
) -> int:
    """Let the user pick a VM, and open it, with one login where possible."""
    from spice_connect.vms import listing  # noqa: PLC0415 - not needed if a VM is named

    def ask(janitor: Janitor, rows: "list[Row]", hosts: "Hosts") -> "Pick | None":
        before.answered()
        if before.windows is None:
            return listing.by_menu(rows, hosts)
        from spice_connect.vms.window import by_window  # noqa: PLC0415 - for an icon

        return by_window(before.windows, janitor, rows, hosts)

    with listing.choosing(settings, terminal, ask, before.windows) as (janitor, choice):
        before.answered()
        if isinstance(choice, int):
            return choice
        picked, settings = choice.pick, settings.at(choice.pick.row.vm["host"])
        _check_local(settings, viewer_command)
        opening = Opening(
            check_vm(picked.row.vm["name"]),
            take_over=options.take_over or picked.take_over,
            wait=options.wait or picked.wait,
        )
        open_vm(
            *(settings, opening, terminal, viewer_command),
            reconnect=not options.no_reconnect,
            begun=Begun(janitor, choice.connection, windows=before.windows),
        )
    return os.EX_OK


def _check_local(settings: Config, viewer_command: ViewerCommand | None) -> None:
    """Raises UsageError for settings that do not work on the KVM host itself."""
    if viewer_command is None and settings.is_local:
        raise UsageError(
            "on the KVM host itself only a viewer we start gets in, so --no-viewer is of no use",
            'for another viewer, viewer = ["..."] in the configuration',
        )
    if settings.viewer_port and settings.is_local:
        raise UsageError(
            "on the KVM host itself a viewer needs Unix sockets", "leave out viewer-port"
        )


def _place(options: Options) -> tuple[str | None, str | None]:
    """The host and the VM. The VM is a name, or a URI, which names its host too."""
    host, vm = options.host, options.vm
    if vm is None or not is_uri(vm):
        return host, vm if vm is None else check_vm(vm)
    if host is not None and not _is_from_environment("host"):
        raise UsageError("the URI and --host both name a host", "leave out --host")
    return parse_uri(vm)


def _is_from_environment(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is ParameterSource.ENVIRONMENT


def _put_desktop_entry(host: str | None, vm: str | None, options: Options) -> None:
    """Write a menu entry that runs this command line, or the handler of URIs."""
    from spice_connect.ui import desktop  # noqa: PLC0415 - rarely used

    if options.as_list or options.as_json or options.no_viewer:
        raise UsageError("--list, --json and --no-viewer are not for icons", "leave them out")
    if vm:
        where = _where(host, options.run_dir)
        path = desktop.put_vm(vm, [*where, *options.of_a_session()], options.arguments)
    else:
        options.check_needs_no_vm()
        if host is not None and not _is_from_environment("host"):
            raise UsageError("the handler of URIs needs no --host", "a URI names its host")
        path = desktop.put_handler(_where(None, options.run_dir))
        Terminal().result(desktop.put_list(_where(None, options.run_dir)))
    Terminal().result(path)


def _where(host: str | None, run_dir: str | None) -> list[str]:
    """--host and --run-dir as words of a command line, checked."""
    options = [f"--host={check_host(host)}"] if host is not None else []
    return options + ([f"--run-dir={check_run_dir(run_dir)}"] if run_dir is not None else [])


def _viewer_command(settings: Config, options: Options) -> ViewerCommand:
    viewer_command = ViewerCommand(settings.viewer, tuple(options.arguments), settings.hot_keys)
    viewer_command = viewer_command.by_port(port=settings.viewer_port)
    check(viewer_command)  # before the login for the list
    if options.monitors:
        return viewer_command.on_monitors(options.monitors)
    return viewer_command.in_full_screen() if options.full_screen else viewer_command


def _settings(
    vm: str | None,
    host: str | None,
    run_dir: str | None,
    terminal: Terminal,
    windows: "Windows | None" = None,
) -> tuple[Config, Callable[[], None]]:
    """The configuration files, overridden by the environment and the command line.

    And what to call when a spicetunnel has answered on the host.
    """
    settings, answered = config.load(), _nothing
    named = host is not None or bool(settings.every_host())
    if run_dir is not None:
        settings = settings._replace(run_dir=check_run_dir(run_dir))
    if host is not None:
        settings = settings.at(check_host(host))
    elif vm is not None:
        settings = settings.at(settings.host_of(vm))
    if not settings.every_host() and is_here(settings.run_dir):
        settings = settings.at(LOCAL)
    elif not named and (windows or terminal.is_attended()):
        from spice_connect.ui import firstrun  # noqa: PLC0415 - used once

        first_run = (
            firstrun.ask_in_window(windows, terminal) if windows else firstrun.ask_host(terminal)
        )
        settings, answered = settings.at(first_run.host), first_run.answered
    if not settings.every_host():
        raise UsageError(
            "no host to connect to",
            f'spice-connect --host HOST, or host = "HOST" in {config.user_file()}',
        )
    return settings, answered


def _nothing() -> None:
    pass
