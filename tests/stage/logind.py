"""A real systemd-logind, separate from the machine's, and real logins with it.

It runs with a bus of its own and, in a mount namespace, a /run of its own, which is `RUN_ROOT` for
other processes. It sees no virtual terminals, so it switches the sessions of a seat itself, as it
does on every seat except seat0 of a real machine. PID 1 may not be systemd here, and if it is, it
must not be disturbed: MANAGER takes its place, and answers that every unit was started or stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from typing import TYPE_CHECKING

from tests.stage.command import run
from tests.stage.install import PYTHON
from tests.stage.machine import RUN
from tests.stage.process import Process
from tests.stage.sockets import is_listening

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from tests.stage.people import Person

DIRECTORY = RUN / "logind"
RUN_ROOT = DIRECTORY / "run"
#: Where logind writes its files: /run/systemd on a real machine.
FILES = RUN_ROOT / "systemd"
BUS = RUN_ROOT / "dbus" / "system_bus_socket"
BUS_ADDRESS = f"unix:path={BUS}"

BUS_CONFIG = DIRECTORY / "bus.conf"
BUS_RULES = f"""\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>{BUS_ADDRESS}</listen>
  <auth>EXTERNAL</auth>
  <policy user="root">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""

#: The calls of org.freedesktop.systemd1 that logind makes. Every start and stop succeeds at once. A
#: scope (the processes of a session) is active from its start until it is stopped.
MANAGER = """\
import itertools, re, sys
import dbus, dbus.bus, dbus.service
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

NAME = "org.freedesktop.systemd1"
MANAGER = NAME + ".Manager"

def unit_of(path):
    return re.sub("_(..)", lambda escaped: chr(int(escaped[1], 16)), path.rpartition("/")[2])

class Manager(dbus.service.FallbackObject):
    numbers = itertools.count(1)
    scopes = set()

    def job(self, unit):
        number = next(self.numbers)
        path = dbus.ObjectPath(f"/org/freedesktop/systemd1/job/{number}")
        GLib.idle_add(self.JobRemoved, number, path, unit, "done")
        return path

    @dbus.service.signal(MANAGER, signature="uoss")
    def JobRemoved(self, number, path, unit, result):
        pass

    @dbus.service.signal(MANAGER, signature="so")
    def UnitRemoved(self, unit, path):
        pass

    @dbus.service.method(MANAGER)
    def Subscribe(self):
        pass

    @dbus.service.method(MANAGER, in_signature="ssa(sv)a(sa(sv))", out_signature="o")
    def StartTransientUnit(self, unit, mode, properties, others):
        self.scopes.add(unit)
        return self.job(unit)

    @dbus.service.method(MANAGER, in_signature="ss", out_signature="o")
    def StartUnit(self, unit, mode):
        return self.job(unit)

    @dbus.service.method(MANAGER, in_signature="ss", out_signature="o")
    def StopUnit(self, unit, mode):
        self.scopes.discard(unit)
        GLib.idle_add(self.UnitRemoved, unit, dbus.ObjectPath("/"))
        return self.job(unit)

    @dbus.service.method(NAME + ".Scope")
    def Abandon(self):
        pass

    @dbus.service.method(
        dbus.PROPERTIES_IFACE, in_signature="ss", out_signature="v", path_keyword="path"
    )
    def Get(self, interface, name, path):
        return "active" if unit_of(path) in self.scopes else "inactive"

DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(sys.argv[1])
manager = Manager(bus, "/org/freedesktop/systemd1")
name = dbus.service.BusName(NAME, bus)
GLib.MainLoop().run()
"""

#: A login program that asks for no password: libpam with pam_systemd, which makes the session. The
#: session lasts as long as this process, like a real one.
LOGIN = """\
import ctypes, signal, sys

PAM_RHOST = 4
user, remote_host, *environment = (word.encode() for word in sys.argv[1:])
pam = ctypes.CDLL("libpam.so.0")
pam.pam_getenv.restype = ctypes.c_char_p
handle = ctypes.c_void_p()
conversation = (ctypes.c_void_p * 2)()  # nothing is asked

def must(result):
    if result:
        raise SystemExit(f"PAM: {result}")

must(pam.pam_start_confdir(b"login", user, conversation, b"/run/pam.d", ctypes.byref(handle)))
if remote_host:
    must(pam.pam_set_item(handle, PAM_RHOST, remote_host))
for variable in environment:
    must(pam.pam_putenv(handle, variable))
must(pam.pam_open_session(handle, 0))
print("session", pam.pam_getenv(handle, b"XDG_SESSION_ID").decode(), flush=True)
signal.pause()
"""

#: Only the session: no authentication.
PAM_CONFIG = RUN_ROOT / "pam.d" / "login"
PAM_RULES = "session required pam_systemd.so\n"

#: The screen of seat1 in udev's database, where logind finds it. The device must exist, so it is
#: /dev/null; logind does not touch it.
UDEV = RUN_ROOT / "udev"
DEVICE = "c1:3"
DEVICE_DATA = "E:ID_SEAT=seat1\nG:seat\nG:master-of-seat\nQ:seat\nQ:master-of-seat\nV:1\n"

#: Hidden, so that logind finds no virtual terminals and leaves the machine's alone.
HIDDEN = "/sys/class/tty"
NAMESPACE = ("unshare", "--mount", "--", "sh", "-ec")
ENTER = f'mount --bind {RUN_ROOT} /run; mount -t tmpfs none {HIDDEN}; exec "$@"'


def inside(name: str, *argv: str) -> Process:
    """Start a program with the private /run and without virtual terminals."""
    return Process([*NAMESPACE, ENTER, "sh", *argv], DIRECTORY / name)


class Login:
    """A login session. `id` is logind's id of it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.id = process.says("session ").split("session ")[1].split()[0]

    def logout(self) -> None:
        """End the login program only; `Logind.end_scope` ends the rest of the session. logind
        notices some time later."""
        self._process.stop()


class Logind:
    """systemd-logind with seat0 and seat1; a context manager. Every login ends with it."""

    def __init__(self) -> None:
        self._parts = contextlib.ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self._start_bus()
            self._start_manager()
            self._start_logind()
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._parts.close()

    def login(
        self,
        person: Person,
        *,
        seat: str = "seat0",
        remote_host: str = "",
        session_class: str = "user",
    ) -> Login:
        """Log in at `seat`, where the session is active at once, or from `remote_host`."""
        place = [] if remote_host else [f"XDG_SEAT={seat}"]
        kind = [f"XDG_SESSION_CLASS={session_class}", "XDG_SESSION_TYPE=tty"]
        argv = (PYTHON, "-c", LOGIN, person.name, remote_host, *place, *kind)
        process = self._parts.enter_context(inside(f"login-{next(self._numbers)}", *argv))
        return Login(process)

    def activate(self, login: Login) -> None:
        """Make it the active session of its seat, as Ctrl-Alt-F1 does."""
        _call("org.freedesktop.login1", "/org/freedesktop/login1", "ActivateSession", login.id)

    def end_scope(self, login: Login) -> None:
        """Tell logind that the last process of the session has ended."""
        scope = f"session-{login.id}.scope"
        _call("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "StopUnit", scope, "fail")

    def restart(self) -> None:
        """Restart logind, as an update of systemd does. The sessions go on."""
        self._logind.stop()
        self._start_logind()

    def _prepare(self) -> None:
        """Start with fresh files, even after another Logind on this stage."""
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        FILES.mkdir(parents=True)
        BUS.parent.mkdir()
        _write(BUS_CONFIG, BUS_RULES)
        _write(PAM_CONFIG, PAM_RULES)
        _write(UDEV / "data" / DEVICE, DEVICE_DATA)
        for tag in ("seat", "master-of-seat"):
            _write(UDEV / "tags" / tag / DEVICE, "")

    def _start_bus(self) -> None:
        argv = ("dbus-daemon", "--nofork", f"--config-file={BUS_CONFIG}")
        bus = self._parts.enter_context(Process(argv, DIRECTORY / "bus"))
        bus.until(lambda: is_listening(BUS), 10, "the bus to listen")

    def _start_manager(self) -> None:
        argv = (PYTHON, "-c", MANAGER, BUS_ADDRESS)
        manager = self._parts.enter_context(Process(argv, DIRECTORY / "manager"))
        manager.until(lambda: _is_there("org.freedesktop.systemd1"), 10, "MANAGER to answer")

    def _start_logind(self) -> None:
        argv = ("env", "SYSTEMD_LOG_TARGET=console", "/lib/systemd/systemd-logind")
        self._logind = self._parts.enter_context(inside("logind", *argv))
        self._logind.until(lambda: _is_there("org.freedesktop.login1"), 10, "logind to answer")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _is_there(name: str) -> bool:
    names = run("busctl", f"--address={BUS_ADDRESS}", "list", "--acquired", "--no-legend")
    return name in names.split()


def _call(service: str, path: str, method: str, *words: str) -> None:
    """Call a method of the service's Manager with string arguments."""
    where = (service, path, f"{service}.Manager", method)
    run("busctl", f"--address={BUS_ADDRESS}", "call", *where, "s" * len(words), *words)
