"""A real systemd-logind that knows nothing of this machine's own, and real logins with it.

It runs with a bus of its own, and on a /run of its own in a mount namespace; from outside, that
/run is the directory `RUN_ROOT`. It sees no virtual terminals, so it switches between the sessions
of a seat itself, as it does on every seat but the first one of a real machine. PID 1 is not systemd
here, or not to be disturbed: MANAGER answers in its place that every unit was started, and stopped.
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
#: Where logind writes: what /run/systemd is on a real machine.
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

#: org.freedesktop.systemd1 as far as logind asks it: what is to start or to stop is done at once. A
#: scope, which holds what runs in a session, is active from its start until it is stopped.
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

#: A login program, without the password: PAM's own library, and pam_systemd, which makes the
#: session. It lasts as long as this process, as a real one does as long as its login program.
LOGIN = """\
import ctypes, signal, sys

PAM_RHOST = 4
user, remote_host, *environment = (word.encode() for word in sys.argv[1:])
pam = ctypes.CDLL("libpam.so.0")
pam.pam_getenv.restype = ctypes.c_char_p
handle = ctypes.c_void_p()
conversation = (ctypes.c_void_p * 2)()  # there is nothing to talk about

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

#: Nothing but the session: who may log in is not asked.
PAM_CONFIG = RUN_ROOT / "pam.d" / "login"
PAM_RULES = "session required pam_systemd.so\n"

#: The screen of seat1, as udev's database tells logind of it. It has to be a device that is there,
#: so it is /dev/null; logind does nothing to it.
UDEV = RUN_ROOT / "udev"
DEVICE = "c1:3"
DEVICE_DATA = "E:ID_SEAT=seat1\nG:seat\nG:master-of-seat\nQ:seat\nQ:master-of-seat\nV:1\n"

#: Bound away, so that logind finds no virtual terminals and leaves the machine's alone.
HIDDEN = "/sys/class/tty"
NAMESPACE = ("unshare", "--mount", "--", "sh", "-ec")
ENTER = f'mount --bind {RUN_ROOT} /run; mount -t tmpfs none {HIDDEN}; exec "$@"'


def inside(name: str, *argv: str) -> Process:
    """A program to which /run is the private one, and which sees no virtual terminals."""
    return Process([*NAMESPACE, ENTER, "sh", *argv], DIRECTORY / name)


class Login:
    """A session, while it lasts. `id` is logind's name for it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.id = process.says("session ").split("session ")[1].split()[0]

    def logout(self) -> None:
        """End the login program, with nothing else of the session: see `Logind.end_scope`. logind
        notices by itself, some time later."""
        self._process.stop()


class Logind:
    """With seat0 and seat1. A context manager; every login ends with it."""

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
        """At `seat`, where it becomes the active session at once, or from `remote_host`."""
        place = [] if remote_host else [f"XDG_SEAT={seat}"]
        kind = [f"XDG_SESSION_CLASS={session_class}", "XDG_SESSION_TYPE=tty"]
        argv = (PYTHON, "-c", LOGIN, person.name, remote_host, *place, *kind)
        process = self._parts.enter_context(inside(f"login-{next(self._numbers)}", *argv))
        return Login(process)

    def activate(self, login: Login) -> None:
        """Switch its seat to it, as Ctrl-Alt-F1 and its like do."""
        _call("org.freedesktop.login1", "/org/freedesktop/login1", "ActivateSession", login.id)

    def end_scope(self, login: Login) -> None:
        """The last process of a session has ended, also of what was left behind at the logout."""
        scope = f"session-{login.id}.scope"
        _call("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "StopUnit", scope, "fail")

    def restart(self) -> None:
        """As an update of systemd does: the sessions live on."""
        self._logind.stop()
        self._start_logind()

    def _prepare(self) -> None:
        """As new, also after another Logind of the same stage."""
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
    """Call a method of the service's Manager, one that takes strings."""
    where = (service, path, f"{service}.Manager", method)
    run("busctl", f"--address={BUS_ADDRESS}", "call", *where, "s" * len(words), *words)
