"""What the broker can read: the map, its parts, the passwords' files, looked at as its own user.

Root may read everything, so root's look says nothing about the broker. A child process drops to the
broker's user and looks. It tells what it saw as JSON: whatever that user's other processes may do
to it, root parses text, and no more than it would take from the map itself.
"""

import grp
import json
import os
import pwd
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

from spicetunnel.admin.keyfiles import others_in, people_of
from spicetunnel.common.errors import SpicetunnelError, UsageError
from spicetunnel.policy.mapfile import is_forbidden
from spicetunnel.policy.password import read_password
from spicetunnel.policy.problems import MapError, MapUnreadableError, Problem, printable, quote
from spicetunnel.policy.vmmap import Source, read_sources

BROKER_USER = "spicetunnel"
KEYS_USER = "nobody"  # AuthorizedKeysCommandUser in sshd's drop-in

Look = Callable[[], Any]  # what it returns can be written as JSON


def broker_user(wanted: str | None) -> str:
    """As whom to look; empty for oneself. Raises UsageError if that cannot be done."""
    name = BROKER_USER if wanted is None else wanted
    is_root, exists = os.geteuid() == 0, _entry(name) is not None
    if wanted and not is_root:
        raise UsageError("only root can look as another user", "run it as root")
    if wanted and not exists:
        raise UsageError(f"no user {quote(wanted)} on this server", "name the broker's user")
    return name if is_root and exists else ""


def group_of(user: str) -> str:
    """The name of that user's group; the usual broker's if `user` is empty."""
    entry = _entry(user)
    return grp.getgrgid(entry.pw_gid).gr_name if entry else BROKER_USER


def sources_seen(user: str, map_file: str) -> tuple[list[Source], list[Problem]]:
    """As `read_sources`, but by that user. Raises MapError."""
    seen = _look_as(user, lambda: _sources(map_file))
    problems = _problems(seen["problems"], user)
    if not seen["files"]:
        raise (MapUnreadableError if seen["unreadable"] else MapError)(problems)
    return [(text.encode("latin-1"), printable(name)) for name, text in seen["files"]], problems


def unreadable_passwords(user: str, files: Iterable[str]) -> list[Problem]:
    """What keeps that user from reading the passwords in these files."""
    return _problems(_look_as(user, lambda: _passwords(sorted({*files}))), user)


def bad_keys(directory: str) -> tuple[list[Problem], list[Problem]]:
    """What keeps sshd from people's keys in that directory: problems, and warnings."""
    if not os.path.lexists(directory):
        return [], []
    user = KEYS_USER if os.geteuid() == 0 and _entry(KEYS_USER) else ""
    seen = _look_as(user, lambda: _keys(directory))
    return _problems(seen["problems"], user), _problems(seen["warnings"], user)


def _keys(directory: str) -> dict[str, object]:
    problems = [each for person in people_of(directory) for each in person.problems]
    warnings = others_in(directory)
    return {"problems": list(map(asdict, problems)), "warnings": list(map(asdict, warnings))}


def _sources(map_file: str) -> dict[str, object]:
    try:
        sources, problems = read_sources(map_file)
    except MapError as error:
        unreadable = isinstance(error, MapUnreadableError)
        return {
            "files": [],
            "unreadable": unreadable,
            "problems": list(map(asdict, error.problems)),
        }
    files = [[name, data.decode("latin-1")] for data, name in sources]
    return {"files": files, "problems": list(map(asdict, problems))}


def _passwords(files: list[str]) -> list[dict[str, object]]:
    problems: list[Problem] = []
    for file in files:
        try:
            read_password(file)
        except MapError as error:
            problems += error.problems
    return list(map(asdict, problems))


def _problems(told: list[dict[str, Any]], user: str) -> list[Problem]:
    """The problems that a child told, in words for who asks: the broker's user, or oneself."""
    found = (Problem(**each) for each in told)
    return [_for_reader(_printable(each), user) for each in found]


def _printable(problem: Problem) -> Problem:
    message, hint = printable(problem.message), printable(problem.hint)
    return replace(problem, file=printable(problem.file), message=message, hint=hint)


def _for_reader(problem: Problem, user: str) -> Problem:
    if not is_forbidden(problem):
        return problem
    if not user:
        return replace(problem, hint="run this as root")
    shown = f"'namei -l {shlex.quote(problem.file)}' shows the owner and mode of each step"
    return replace(problem, message=f"cannot be read by {user}: permission denied", hint=shown)


def _look_as(user: str, look: Look) -> Any:
    """What `look` returns, when that user looks; oneself if `user` is empty."""
    entry = _entry(user)
    if entry is None:
        return look()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _be_child(entry, theirs, look)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise SpicetunnelError(f"looking as {user} failed", "this is a fault of spicetunnel's")
    return json.loads(told)


def _be_child(entry: pwd.struct_passwd, pipe: int, look: Look) -> None:
    """Become that user, look, tell, and exit."""
    code = os.EX_SOFTWARE
    try:
        os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        with open(pipe, "wb") as file:
            file.write(json.dumps(look()).encode())
        code = os.EX_OK
    except BaseException:  # a child must not return into its parent's code
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
