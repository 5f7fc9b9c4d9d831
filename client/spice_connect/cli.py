"""The command line of spice-connect."""

import io
import os
import sys

import click

from spice_connect import config, signals
from spice_connect.config import Config
from spice_connect.errors import ClientError, Interrupted, UsageError
from spice_connect.listing import show_vms
from spice_connect.local import is_here
from spice_connect.names import LOCAL, check_host, check_run_dir, check_vm
from spice_connect.reconnect import open_vm
from spice_connect.ssh import Opening
from spice_connect.terminal import Terminal

EPILOG = """\b
Exit codes:
  0    the viewer was closed
  64   usage
  69   the VM is off, or host or viewer cannot be had, or the connection was lost for good
  70   a fault of ours, here or on the server
  71   this machine's system refused something
  75   busy: somebody has the VM's seat
  76   what answers on the host is not spicetunnel
  77   not permitted
  78   the configuration is wrong
  130  Ctrl-C (128 + the signal's number)

\b
When the VM restarts (within a minute) or the network drops (within five), the window comes
back by itself. With --no-viewer the path is printed again then; it stays the same.

\b
Configuration: /etc/spice-connect/config.toml, then ~/.config/spice-connect/config.toml
  host = "alice@kvm"                 or SPICE_CONNECT_HOST, or --host
  host = "local:"                    this machine is the KVM host: no ssh. So it is where no host
                                     is named and a broker runs here
  gate = "/usr/bin/spicetunnel-gate" of this machine
  run-dir = "/run/spicetunnel"       of the server
  ssh = ["ssh"]                      a wrapper script must exec its ssh
  viewer = ["remote-viewer"]         the connection file is its last argument
"""


def main() -> None:
    try:
        signals.install()
        _sound_streams()
        code = run(sys.argv[1:])
    except Interrupted as interruption:
        code = interruption.exit_code
    sys.exit(code)


def run(args: list[str]) -> int:
    """The exit code. All failures meet here."""
    try:
        return int(command.main(args, "spice-connect", standalone_mode=False) or os.EX_OK)
    except ClientError as error:
        Terminal().fail(error)
        return error.exit_code
    except click.ClickException as error:
        Terminal().tell(_our_style(error.format_message()), "spice-connect --help")
        return os.EX_USAGE
    except OSError as error:
        Terminal().tell(str(error))
        return os.EX_OSERR


def _sound_streams() -> None:
    """All three open, so that no descriptor of ours gets their numbers; and no text fails."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale that lacks a character


def _our_style(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # noqa: PLC0415 - costs 20 ms

        try:
            version = metadata.version("spicetunnel")
        except metadata.PackageNotFoundError:
            version = "(run from its source, not installed)"
        Terminal().result(f"spice-connect {version}")
        context.exit()


@click.command(
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 90},
)
@click.argument("vm", required=False)
@click.option("--host", envvar="SPICE_CONNECT_HOST", help="[USER@]HOST, an ssh alias, or local:")
@click.option("--take-over", is_flag=True, help="Take the VM's seat from who has it now.")
@click.option("--wait", is_flag=True, help="Wait for a VM that is off.")
@click.option(
    "--no-reconnect",
    is_flag=True,
    help="End when the VM stops or the network drops; else the window comes back by itself.",
)
@click.option("--no-viewer", is_flag=True, help="Print the socket's path and hold the tunnel.")
@click.option("--json", "as_json", is_flag=True, help="The list of VMs as JSON.")
@click.option("--run-dir", metavar="DIR", help="The server's run directory.")
@click.option("-v", "--verbose", is_flag=True, help="Show the commands and the server's noise.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def command(  # noqa: PLR0913 - one parameter an option
    *,
    vm: str | None,
    host: str | None,
    take_over: bool,
    wait: bool,
    no_reconnect: bool,
    no_viewer: bool,
    as_json: bool,
    run_dir: str | None,
    verbose: bool,
) -> None:
    """Open the desktop of VM; without VM, list the VMs you may use."""
    if vm is None and (take_over or wait or no_reconnect or no_viewer):
        options = "--take-over, --wait, --no-reconnect and --no-viewer"
        raise UsageError(f"{options} need a VM", "spice-connect alone lists yours")
    if vm is not None and as_json:
        raise UsageError("--json is for the list of VMs", "leave out the VM's name")
    if vm is not None:
        check_vm(vm)
    terminal = Terminal(verbose=verbose)
    settings = _settings(host, run_dir)
    if no_viewer and settings.is_local:
        raise UsageError(
            "on the KVM host itself only our own viewer gets in, so --no-viewer is of no use",
            'for another viewer, viewer = ["..."] in the configuration',
        )
    if vm is None:
        show_vms(settings, terminal, as_json=as_json)
    else:
        opening = Opening(vm, take_over=take_over, wait=wait)
        choices = {"with_viewer": not no_viewer, "reconnect": not no_reconnect}
        open_vm(settings, opening, terminal, **choices)


def _settings(host: str | None, run_dir: str | None) -> Config:
    """The command line and the environment over the configuration files."""
    settings = config.load()
    if host is not None:
        settings = settings._replace(host=check_host(host))
    if run_dir is not None:
        settings = settings._replace(run_dir=check_run_dir(run_dir))
    if not settings.host and is_here(settings.run_dir):
        settings = settings._replace(host=LOCAL)
    if not settings.host:
        raise UsageError(
            "no host to connect to",
            f'spice-connect --host HOST, or host = "HOST" in {config.user_file()}',
        )
    return settings
