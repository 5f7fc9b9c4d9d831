"""An sshd that accepts a password and shows a banner of several lines."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.stage.command import run
from tests.stage.machine import RUN
from tests.stage.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.client import Client
    from tests.stage.people import Person
    from tests.stage.stage import Stage

PASSWORD = "correct horse"
BANNER = "Authorised use only.\n\nhi\nAll is logged.\n"

#: Both ways to ask for a password: `password`, and `keyboard-interactive` with PAM.
SETTINGS = """\
PasswordAuthentication yes
KbdInteractiveAuthentication yes
UsePAM yes
Banner {banner}
"""


@contextlib.contextmanager
def open_door(stage: Stage, person: Person) -> Iterator[Sshd]:
    run("usermod", "-p", run("openssl", "passwd", "-6", PASSWORD).strip(), person.name)
    banner = RUN / "banner"
    banner.write_text(BANNER)
    with Sshd(f"door-{person.name}", SETTINGS.format(banner=banner) + stage.drop_in()) as door:
        try:
            yield door
        finally:
            run("usermod", "-p", "*", person.name)


def go_to(pc: Client, door: Sshd, **options: str) -> None:
    """Point `pc`'s ssh at `door`, without keys unless `options` (of ssh_config) allow them."""
    lines = {"Port": str(door.port), "UserKnownHostsFile": str(door.known_hosts)}
    lines |= {"BatchMode": "no", "PubkeyAuthentication": "no"} | options
    text = "".join(f"    {name} {value}\n" for name, value in lines.items())
    # Without the old values, which ssh would not look at: the built-in ssh is strict where
    # "StrictHostKeyChecking yes" stands at all.
    old = pc.ssh_config.read_text().splitlines(keepends=True)
    kept = [line for line in old if line.split()[:1] not in ([name] for name in lines)]
    pc.ssh_config.write_text(f"Host kvm\n{text}" + "".join(kept))
