"""What the broker keeps on disk, as it would read it at its start."""

import os
import stat

import click

from spicetunnel.admin.terminal import say
from spicetunnel.common.errors import os_reason
from spicetunnel.policy.mapfile import MAX_BYTES
from spicetunnel.policy.problems import printable
from spicetunnel.policy.temporary import FILE, STATE_DIR, TemporaryGrant, read_grants

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

state_dir_option = click.option(
    "--state-dir",
    default=STATE_DIR,
    show_default=True,
    metavar="DIR",
    help="Where the broker keeps temporary grants.",
)


def temporary_grants(state_dir: str) -> tuple[TemporaryGrant, ...]:
    """None, with a word on stderr, where they cannot be read."""
    try:
        return read_grants(_bytes(os.path.join(state_dir, FILE)))
    except FileNotFoundError as error:
        if state_dir == STATE_DIR or os.path.isdir(state_dir):
            return ()  # nothing was ever granted
        why = os_reason(error)
    except OSError as error:
        why = os_reason(error)
    except ValueError as error:
        why = str(error)
    place = printable(os.path.join(state_dir, FILE))
    say(f"spicetunnel: temporary grants are left out: {place}: {printable(why)}", err=True)
    return ()


def _bytes(path: str) -> bytes:
    """The file is the broker's, which may be another user than ours."""
    with open(os.open(path, _OPEN), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("is too large")
    return data
