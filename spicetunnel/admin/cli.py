"""The admin's command, `spicetunnel`."""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module

import click

import spicetunnel
from spicetunnel.common.errors import SpicetunnelError, UsageError
from spicetunnel.policy.problems import printable

_INTERRUPTED = 130  # as a shell reports SIGINT

#: The module of spicetunnel.admin that holds each command.
_MODULES = {
    "calendar": "calendar",
    "check": "check",
    "edit": "edit",
    "explain": "explain",
    "grant": "grant",
    "grants": "grant",
    "keys": "keys",
    "kick": "kick",
    "log": "log",
    "metrics": "metrics",
    "principals": "keys",
    "revoke": "grant",
    "schema": "schema",
    "sessions": "sessions",
    "sshd-config": "sshd_config",
    "status": "status",
}


class _Commands(Mapping[str, click.Command]):
    """Imports a command's module when that command is looked up; `--help` looks up all of them.

    sshd runs `keys` or `principals` at each login to a shared account, so these must start fast.
    """

    def __getitem__(self, name: str) -> click.Command:
        module = import_module(f"spicetunnel.admin.{_MODULES[name]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


@click.group(
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
)
@click.version_option(spicetunnel.__version__, prog_name="spicetunnel")
def cli() -> None:
    """Look after spicetunnel on a KVM host."""


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command. Returns its exit code, one of sysexits(3)."""
    try:
        return cli.main(arguments, prog_name="spicetunnel", standalone_mode=False) or 0
    except click.UsageError as error:
        return _fail(_translated(error))
    except SpicetunnelError as error:
        return _fail(error)
    except click.Abort:
        return _INTERRUPTED


def _translated(error: click.UsageError) -> UsageError:
    """A message of click's in our form: lower case, no full stop, a hint."""
    reason = printable(error.format_message().rstrip("."))
    command = error.ctx.command_path if error.ctx else "spicetunnel"
    return UsageError(reason[:1].lower() + reason[1:], f"'{command} -h' shows how it is used")


def _fail(error: SpicetunnelError) -> int:
    click.echo(f"spicetunnel: {error.reason}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code
