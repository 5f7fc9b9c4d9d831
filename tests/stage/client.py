"""A person at a PC: no privileges, an ssh configuration of their own, a screen, spice-connect."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from tests.stage.broker import RUN_DIR
from tests.stage.machine import LOGS, RUN
from tests.stage.process import Process
from tests.stage.sshd import ALIAS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.sshd import Sshd

#: There is no accessibility bus and no settings daemon. This keeps GTK from looking for them, and
#: from printing warnings.
QUIET_GTK = {"NO_AT_BRIDGE": "1", "GSETTINGS_BACKEND": "memory"}

_numbers = itertools.count(1)


class Client:
    """`person` sits at the PC, and logs in to the server as `login`."""

    def __init__(
        self, person: Person, login: Person, sshd: Sshd, programs: Path, transport: str
    ) -> None:
        """`transport`: the `ssh` setting of spice-connect, "ssh" or "built-in"."""
        self.person = person
        self.transport = transport
        self.programs = programs
        runtime_parent = RUN / "user"
        runtime_parent.mkdir(exist_ok=True)
        self.runtime_dir = person.directory(runtime_parent / person.name)
        config_home = person.directory(person.home / f"as-{login.name}")
        self.ssh_config = sshd.write_ssh_config(config_home / "ssh_config", person, login)
        self.env = {
            "XDG_RUNTIME_DIR": str(self.runtime_dir),
            "XDG_CONFIG_HOME": str(config_home),
            **QUIET_GTK,
        }
        self.config = person.directory(config_home / "spice-connect") / "config.toml"
        self._write_config(self.config)

    def home(self, name: str) -> Path:
        """A path in the person's home; a file there is removed."""
        path = self.person.home / name
        path.unlink(missing_ok=True)
        return path

    def prefer(self, **options: str) -> None:
        """Put these options first in the ssh configuration: ssh takes the first value it meets."""
        lines = "".join(f"    {name} {value}\n" for name, value in options.items())
        self.ssh_config.write_text(f"Host {ALIAS}\n{lines}" + self.ssh_config.read_text())

    def goes_to(self, sshd: Sshd) -> None:
        """Log in at this sshd from now on."""
        self.prefer(Port=str(sshd.port), UserKnownHostsFile=str(sshd.known_hosts))

    def configure(self, **settings: object) -> None:
        """Set these keys of spice-connect's configuration."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        kept = [
            line for line in self.config.read_text().splitlines() if line.split()[0] not in settings
        ]
        self.config.write_text("\n".join([*kept, *lines, ""]))

    def at(self, screen: Screen) -> Client:
        """The same person, in front of `screen`."""
        self.env.update(screen.access)
        return self

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> Process:
        """Start any command on the PC, as the person."""
        log = LOGS / f"{self.person.name}-{next(_numbers)}"
        return Process(argv, log, person=self.person, env={**self.env, **(env or {})})

    def spice_connect(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        return self.run(str(self.programs / "spice-connect"), *arguments, env=env)

    def ssh(self, *arguments: str) -> Process:
        """Plain ssh, as typed by a person without our client: `ssh("kvm", "list")`."""
        return self.run("ssh", "-F", str(self.ssh_config), *arguments)

    def _write_config(self, path: Path) -> None:
        settings = {
            "host": ALIAS,
            "run-dir": str(RUN_DIR),
            "ssh": [self.transport, "-F", str(self.ssh_config)],
            "viewer": ["remote-viewer"],
            "gate": str(self.programs / "spicetunnel-gate"),
        }
        # JSON strings and lists of strings are valid TOML.
        path.write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        )
        self.person.owns(path, 0o600)
