"""`spicetunnel grant`, `revoke` and `grants`: temporary grants, kept by the running broker."""

import json
from datetime import datetime, timedelta

import click

from spicetunnel.admin.broker import ask, ask_rows, run_dir_option
from spicetunnel.admin.options import json_option
from spicetunnel.admin.rules import read_grant
from spicetunnel.admin.terminal import hint, say
from spicetunnel.common.errors import ProtocolError, UsageError
from spicetunnel.policy import accounts, durations
from spicetunnel.policy.problems import printable, quote
from spicetunnel.policy.temporary import TemporaryGrant

_COLUMNS = ("ID", "USER", "VM", "UNTIL", "BY", "REASON")


@click.command()
@click.argument("user")
@click.argument("vm")
@click.option("--for", "span", required=True, metavar="TIME", help="Such as 90s, 2h or 1h30m.")
@click.option("--reason", default="", metavar="TEXT", help="Shown to other admins and in the log.")
@run_dir_option
def grant(user: str, vm: str, span: str, reason: str, run_dir: str) -> None:
    """Let USER use VM for a time, in addition to what the map allows."""
    seconds = int(_parse_span(span).total_seconds())
    answer = ask(run_dir, "grant", user=user, vm=vm, seconds=seconds, reason=reason)
    given = read_grant(answer.get("grant"))
    say(f"{given.user} may use '{given.vm}' until {_spoken(given.until)}: grant {given.id}")
    if not accounts.has_user(given.user):
        say(f"spicetunnel: no user {quote(given.user)} on this server", err=True)
        hint("only somebody who comes through a shared account can be of that name")


@click.command()
@click.argument("which", nargs=-1, metavar="GRANT-ID | USER VM")
@run_dir_option
def revoke(which: tuple[str, ...], run_dir: str) -> None:
    """Take a temporary grant back. Sessions that it allowed end now."""
    match which:
        case (grant_id,):
            about = {"grant": grant_id}
        case (user, vm):
            about = {"user": user, "vm": vm}
        case _:
            raise UsageError("name a grant, or a user and a vm", "'spicetunnel grants' shows them")
    gone = ask(run_dir, "revoke", **about).get("grants")
    if not isinstance(gone, list):
        raise ProtocolError("the broker's answer has no 'grants'")
    for each in gone:
        say(f"revoked {printable(str(each))}")


@click.command()
@json_option
@run_dir_option
def grants(as_json: bool, run_dir: str) -> None:
    """List the temporary grants."""
    found = [read_grant(row) for row in ask_rows(run_dir, "grants")]
    if as_json:
        say(json.dumps({"grants": [each.model_dump(mode="json") for each in found]}))
    elif found:
        say(_table([_COLUMNS, *map(_row, sorted(found, key=lambda each: each.until))]))
    else:
        say("there are no temporary grants")


def _parse_span(text: str) -> timedelta:
    try:
        return durations.parse_duration(text)
    except ValueError:
        raise UsageError(
            f"--for must be a span of time, not {quote(text)}", durations.HINT
        ) from None


def _row(grant: TemporaryGrant) -> tuple[str, ...]:
    end = f"{grant.until.astimezone():%Y-%m-%d %H:%M}"
    return grant.id, grant.user, grant.vm, end, grant.by, grant.reason


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _spoken(moment: datetime) -> str:
    """On the server's clock."""
    local = moment.astimezone()
    return f"{local:%a} {local:%Y-%m-%d} at {local:%H:%M:%S} ({local:%Z})"
