"""The stage, on which tests run with real programs: sshd, VMs, relay, broker, screen.

Each part is started when it is first used.
"""

from __future__ import annotations

import contextlib
import itertools
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stage.bootsector import Colour
from tests.stage.broker import RUN_DIR, Broker, Relay
from tests.stage.client import Client
from tests.stage.command import run
from tests.stage.install import install, uninstall
from tests.stage.machine import LOGS, RUN, USERS, Machine
from tests.stage.process import Process
from tests.stage.screen import VirtualScreen
from tests.stage.sshd import NAIVE_DROP_IN, Sshd
from tests.stage.vm import SOCKETS, Vm, open_socket_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from tests.stage.people import Person

CHECKOUT = Path(__file__).parents[2]
MAP_FILE = RUN / "vms.yaml"

#: The VMs of `Stage.vm`. vm3 is off, unless a test starts it.
VMS = {"vm1": Colour.BLUE, "vm2": Colour.GREEN, "vm3": Colour.RED}

LIMITS = "limits: {opens-per-minute: 250, sessions-per-user: 250}\n"
#: Nobody may use anything.
NO_VMS = f"{LIMITS}vms: {{}}\n"
#: alice may use vm1, bob vm2, carol both; mallory may log in and use none.
MAP = f"""\
{LIMITS}vms:
  vm1:
    title: Windows 10, book-keeping
    socket: {SOCKETS}/vm1.sock
    allow:
      - user: st-alice
      - user: st-carol
        take-over: true
  vm2:
    title: web test server
    socket: {SOCKETS}/vm2.sock
    allow:
      - user: st-bob
      - user: st-carol
  vm3:
    socket: {SOCKETS}/vm3.sock
    allow:
      - user: st-alice
"""


class Stage:
    """A context manager. Everything that it starts ends with it."""

    def __init__(self, vm_map: str = MAP, *, keep_install: bool = True) -> None:
        self._vm_map = vm_map
        self._keep_install = keep_install
        self._parts = contextlib.ExitStack()
        self._vms: dict[str, Vm] = {}
        self._numbers = itertools.count(1)
        #: The `ssh` setting of the clients made from now on.
        self.transport = "ssh"

    def __enter__(self) -> Self:
        try:
            self._prepare()
        except BaseException:
            self._parts.close()
            raise
        return self

    def _prepare(self) -> None:
        self._machine = self._parts.enter_context(Machine())
        self._broker_user = self.service("broker")
        self._qemu_user = self.service("qemu")
        open_socket_directory(self._qemu_user, self._broker_user)
        # The map names them, and a map with an unknown user may be refused.
        for name in ("alice", "bob", "carol", "mallory"):
            self.person(name)

    def __exit__(self, *error: object) -> None:
        self._parts.close()

    def person(self, name: str, *, gateway: bool = True) -> Person:
        """The account st-NAME, made on first use; see `Machine.person`."""
        return self._machine.person(name, gateway=gateway)

    def service(self, name: str) -> Person:
        return self._machine.service(name)

    @cached_property
    def programs(self) -> Path:
        """The directory of the installed project's programs."""
        if not self._keep_install:
            self._parts.callback(uninstall)
        return install(CHECKOUT)

    def vm(self, name: str) -> Vm:
        """The VM, running. Starts it again if an earlier test ended it."""
        if name not in self._vms:
            self._vms[name] = Vm(name, VMS[name], self._qemu_user)
            self._parts.callback(self._vms[name].stop)
        return self._vms[name].start()

    def extra_vm(
        self,
        name: str,
        colour: Colour,
        extra: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        ticket: str = "disable-ticketing=on",
    ) -> Vm:
        """A VM for one test; use it as a context manager.

        `extra`, `env`: options and environment for QEMU; `ticket`: its option for the password.
        """
        return Vm(name, colour, self._qemu_user, extra, env, ticket)

    @cached_property
    def screen(self) -> VirtualScreen:
        return self._parts.enter_context(VirtualScreen(LOGS / "xvfb"))

    @cached_property
    def sshd(self) -> Sshd:
        """sshd with the drop-in that the product prints."""
        return self._parts.enter_context(Sshd("sshd", self.drop_in()))

    @cached_property
    def naive_sshd(self) -> Sshd:
        """sshd with a ForceCommand and nothing else, which leaves forwarding open."""
        return self._parts.enter_context(Sshd("naive", NAIVE_DROP_IN))

    def drop_in(self) -> str:
        gate = ("--gate", str(self.programs / "spicetunnel-gate"))
        places = ("--group", USERS, *gate, "--run-dir", str(RUN_DIR))
        return run(str(self.programs / "spicetunnel"), "sshd-config", *places)

    @cached_property
    def relay(self) -> Relay:
        program = self.programs / "spicetunnel-relay"
        services = (self.service("relay"), self._broker_user)
        return self._parts.enter_context(Relay(program, *services))

    @cached_property
    def broker(self) -> Broker:
        self.write_map(self._vm_map)
        assert self.relay.alive()
        program = self.programs / "spicetunneld"
        return self._parts.enter_context(Broker(program, MAP_FILE, self._broker_user))

    def write_map(self, text: str) -> None:
        """Replace the map atomically. The broker notices some time later."""
        new = MAP_FILE.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o644)
        new.rename(MAP_FILE)

    def set_map(self, text: str = MAP) -> bool:
        """Replace the map and wait for the broker; returns whether it accepted the map."""
        before = self.broker.mark()
        self.write_map(text)
        self.broker.reload()
        line = self.broker.wait_audit(lambda line: line["event"] == "map", since=before)
        return bool(line["decision"] == "allow")

    def client(self, person: Person, login: Person | None = None) -> Client:
        """`person` at a PC, who logs in as `login` (default: as themselves)."""
        return Client(person, login or person, self.sshd, self.programs, self.transport)

    def gate_ssh(
        self, person: Person, command: str = "", *extra: str, forwards: Sequence[str] = ()
    ) -> Process:
        """Start a plain ssh, run by root, that logs in as `person`; `forwards`: arguments of -L."""
        options = [word for forward in forwards for word in ("-L", forward)]
        words = [command] if command else []
        argv = [*self.sshd.ssh_argv(person, *options, *extra), *words]
        return Process(argv, LOGS / f"ssh-{next(self._numbers)}")
