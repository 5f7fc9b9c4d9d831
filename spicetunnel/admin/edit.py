"""`spicetunnel edit`: edit the map, check it, show what changes, then put it in place."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from spicetunnel.admin.changes import changes
from spicetunnel.admin.doubts import doubts
from spicetunnel.admin.mapcopy import (
    CannotWriteError,
    Copy,
    Original,
    locked,
    part_of,
    require_main,
)
from spicetunnel.admin.options import map_option
from spicetunnel.admin.terminal import say, show_problems, wrapped
from spicetunnel.common.errors import SpicetunnelError, UsageError, os_reason
from spicetunnel.policy.mapfile import with_hint_if_forbidden
from spicetunnel.policy.problems import MapError, printable, quote
from spicetunnel.policy.vmmap import VmMap, load_map

_EDITORS = ("sensible-editor", "vi")
_COLOURS = {"+": "green", "-": "red", "~": "yellow"}


class EditorError(SpicetunnelError):
    """The editor cannot be run, or failed."""

    exit_code = os.EX_UNAVAILABLE


@click.command()
@click.argument("part", required=False)
@click.option("--yes", is_flag=True, help="Save without asking.")
@map_option
def edit(part: str | None, yes: bool, map_file: str) -> int:
    """Edit the map in $VISUAL or $EDITOR, safely; or its PART: 'lab' is vms.d/lab.yaml.

    The edited map is checked, shown as a difference in decisions (who gains and who loses what),
    and put in place in one step. One admin at a time.
    """
    require_main(map_file)
    _require_readable(map_file)  # before a lock file is made beside it
    file = map_file if part is None else part_of(map_file, part)
    with _os_errors_told(), locked(map_file):
        copy = Copy(Original.read(file, may_be_new=part is not None), map_file)
        try:
            return _edited(copy, _load_old(map_file), yes)
        finally:
            _tell_if_kept(copy)


def _require_readable(map_file: str) -> None:
    """Raises MapError if there is no map, or none that this person may read."""
    try:
        Original.read(map_file)
    except MapError as error:
        raise with_hint_if_forbidden(error, "run it as root") from None


@contextmanager
def _os_errors_told() -> Iterator[None]:
    """Raises CannotWriteError in the place of an OSError."""
    try:
        yield
    except OSError as error:
        reason = f"{printable(str(error.filename or 'the map'))}: {os_reason(error)}"
        hint = "run it as root" if isinstance(error, PermissionError) else "the map is as it was"
        raise CannotWriteError(reason, hint) from None


def _tell_if_kept(copy: Copy) -> None:
    if not copy.is_kept() or not copy.is_changed():
        copy.discard()
    else:
        say(f"what you wrote is kept in {printable(copy.file)}", err=True)


def _edited(copy: Copy, old: VmMap, yes: bool) -> int:
    """Edit, check and ask, until the edit is saved or given up."""
    while True:
        _run_editor(copy.file)
        if not copy.is_changed():
            say("no change, nothing is written")
            return os.EX_OK
        try:
            new = copy.check()
        except MapError as error:
            code = _after_problems(copy, error)
        else:
            _warn(copy, old, new)
            code = _after_changes(copy, changes(old, new), yes)
        if code is not None:
            return code


def _load_old(path: str) -> VmMap:
    try:
        return load_map(path)
    except MapError:
        say("the map as it stands is not valid: what follows is compared with an empty one")
        return VmMap()


def _after_problems(copy: Copy, error: MapError) -> int | None:
    """The exit code, or None to edit again."""
    show_problems(error.problems)
    if not sys.stdin.isatty():
        return error.exit_code
    if _ask("(e)dit again, (q)uit without saving", "eq") == "e":
        return None
    copy.discard()
    return error.exit_code


def _warn(copy: Copy, old: VmMap, new: VmMap) -> None:
    """Show the warnings that the map did not give before the edit."""
    now, file = datetime.now(UTC), copy.original.path
    known = {problem.message for problem in doubts(old, file, now)}
    fresh = (each for each in doubts(new, file, now) if each.message not in known)
    show_problems(map(copy.renamed, fresh), kind="warning")


def _after_changes(copy: Copy, lines: list[str], yes: bool) -> int | None:
    """The exit code, or None to edit again."""
    for line in lines or ["no decision changes"]:
        say(click.style(wrapped(line), fg=_COLOURS.get(line[0])))
    answer = "y" if yes else _ask_to_save()
    if answer == "e":
        return None
    if answer == "y":
        copy.swap()
        say(f"{printable(copy.original.path)}: saved")
    else:
        copy.discard()
        say("not saved")
    return os.EX_OK


def _ask_to_save() -> str:
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on", "--yes saves without asking")
    return _ask("save? [y/N], or (e)dit again", "yne", default="n")


def _ask(question: str, answers: str, default: str | None = None) -> str:
    """One letter of `answers`. Raises click.Abort at the end of the input."""
    while True:
        try:
            answer = click.prompt(question, default=default, show_default=False, err=True)
        except click.Abort:
            say(err=True)  # the next line starts on a line of its own
            raise
        if (letter := answer.strip().lower()[:1]) and letter in answers:
            return letter


def _run_editor(file: str) -> None:
    command = _editor()
    with _interrupts_are_the_editors():
        try:
            code = subprocess.run([*command, file], check=False).returncode
        except OSError as error:
            reason = f"cannot run {quote(command[0])}: {os_reason(error)}"
            raise EditorError(reason, "set EDITOR to an installed editor") from None
    if code:
        reason = f"the editor {quote(command[0])} failed ({code}), nothing is written"
        raise EditorError(reason, "edit again, and leave the editor without an error")


def _editor() -> list[str]:
    text = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not text:
        return [next((name for name in _EDITORS if shutil.which(name)), "vi")]
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words:
        raise UsageError(f"EDITOR is not a command: {quote(text)}", "write it like 'vim -n'")
    return words


@contextmanager
def _interrupts_are_the_editors() -> Iterator[None]:
    """Leave Ctrl-C to the editor. By a handler, because an ignored signal would be inherited."""
    before = {each: signal.signal(each, _pass) for each in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _pass(_signal: int, _frame: object) -> None:
    pass
