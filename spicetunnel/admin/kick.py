"""`spicetunnel kick`: end somebody's session."""

import json
import os

import click

from spicetunnel.admin.broker import ask_rows, run_dir_option
from spicetunnel.admin.options import json_option
from spicetunnel.admin.terminal import say
from spicetunnel.common.errors import SpicetunnelError, UsageError
from spicetunnel.common.names import is_session_id, is_vm_name
from spicetunnel.common.protocol import MAX_REASON, text
from spicetunnel.policy.problems import printable, quote

_HINT = "'spicetunnel sessions' shows who is there"


class NoSessionError(SpicetunnelError):
    """No session matches."""

    exit_code = os.EX_UNAVAILABLE


@click.command()
@click.argument("session", default="")
@click.option("--user", default="", metavar="USER", help="All sessions of USER.")
@click.option("--vm", default="", metavar="VM", help="All sessions at VM.")
@click.option("--reason", default="", metavar="TEXT", help="What the person is told.")
@json_option
@run_dir_option
def kick(  # noqa: PLR0913, PLR0917 - each is one of the command line's
    session: str, user: str, vm: str, reason: str, as_json: bool, run_dir: str
) -> None:
    """End SESSION, or the sessions of a user or at a VM. What you name must all match.

    The map stays as it is, so the person may come again. Exit code 69: no such session.
    """
    _check(session, user, vm)
    if len(reason) > MAX_REASON:
        raise UsageError(f"--reason is longer than {MAX_REASON} characters", "say it in one line")
    wanted = {"session": session, "user": user, "vm": vm}
    ended = ask_rows(run_dir, "kick", key="kicked", **wanted, reason=reason)
    if as_json:
        say(json.dumps({"sessions": [text(each, "id") for each in ended]}))
    if not ended:
        raise NoSessionError(_none_of(**wanted), _HINT)
    for each in () if as_json else ended:
        words = (printable(text(each, key)) for key in ("id", "user", "vm"))
        say("ended: {} of {} at {}".format(*words))


def _none_of(session: str, user: str, vm: str) -> str:
    """In words, that no session is the one that was named."""
    words = [
        session and quote(session),
        user and f"of user {quote(user)}",
        vm and f"at vm {quote(vm)}",
    ]
    return " ".join(["no session", *filter(None, words)])


def _check(session: str, user: str, vm: str) -> None:
    """Raises UsageError."""
    if not (session or user or vm):
        raise UsageError("nothing says whose session to end", "name a session, --user or --vm")
    if session and not is_session_id(session):
        raise UsageError(f"not a session's name: {quote(session)}", _HINT)
    if vm and not is_vm_name(vm):
        raise UsageError(f"not a vm's name: {quote(vm)}", _HINT)
