"""The admin's command, `spicetunnel`."""

import sys

import click

import spicetunnel
from spicetunnel.admin.calendar import calendar
from spicetunnel.admin.check import check
from spicetunnel.admin.edit import edit
from spicetunnel.admin.explain import explain
from spicetunnel.admin.grant import grant, grants, revoke
from spicetunnel.admin.keys import keys, principals
from spicetunnel.admin.kick import kick
from spicetunnel.admin.log import log
from spicetunnel.admin.metrics import metrics
from spicetunnel.admin.schema import schema
from spicetunnel.admin.sessions import sessions
from spicetunnel.admin.sshd_config import sshd_config
from spicetunnel.admin.status import status
from spicetunnel.common.errors import SpicetunnelError, UsageError
from spicetunnel.policy.problems import printable

_INTERRUPTED = 130  # as a shell reports SIGINT


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(spicetunnel.__version__, prog_name="spicetunnel")
def cli() -> None:
    """Look after spicetunnel on a KVM host."""


_COMMANDS = (
    calendar,
    check,
    edit,
    explain,
    grant,
    grants,
    keys,
    kick,
    log,
    metrics,
    principals,
    revoke,
    schema,
    sessions,
    sshd_config,
    status,
)
for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code, one of sysexits."""
    try:
        return cli.main(arguments, prog_name="spicetunnel", standalone_mode=False) or 0
    except click.UsageError as error:
        return _fail(_translated(error))
    except SpicetunnelError as error:
        return _fail(error)
    except click.Abort:
        return _INTERRUPTED


def _translated(error: click.UsageError) -> UsageError:
    """A complaint of click's in our form: lower case, no full stop, a hint."""
    reason = printable(error.format_message().rstrip("."))
    command = error.ctx.command_path if error.ctx else "spicetunnel"
    return UsageError(reason[:1].lower() + reason[1:], f"'{command} -h' shows how it is used")


def _fail(error: SpicetunnelError) -> int:
    click.echo(f"spicetunnel: {error.reason}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code
