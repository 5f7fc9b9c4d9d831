"""A session's process that was taken over tries each way to another session's process.

The processes are those of the relay: a parent forks two sessions, all three run as one ordinary
user. The attacker has more than a session really has: the process ids, the addresses, a pidfd of
its target, and sockets that are not connected yet. Each attack also runs without the sandbox,
where it succeeds or is refused by something else: so it is the sandbox that stops it.
"""

import contextlib
import ctypes
import errno
import functools
import json
import linecache
import mmap
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

import pytest

from spicetunnel.common import fdpass
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.relay import isolation
from spicetunnel.relay.isolation import Sandbox

#: The sandbox's own answer. The kernel never gives it for a call that it has.
DENIED = errno.ENOSYS
#: Who the processes are if root runs the tests. It needs no account.
ORDINARY_UID = 54321
OWNER = (ORDINARY_UID, ORDINARY_UID) if os.geteuid() == 0 else (-1, -1)

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
LIBSECCOMP = ctypes.CDLL("libseccomp.so.2")
#: At the same address in all processes, as they are forks. Each writes its own name into it.
SECRET = ctypes.create_string_buffer(b"nobody", 16)
ADDRESS = ctypes.addressof(SECRET)


class Scene(NamedTuple):
    """What the attacker knows and holds. `fd` is the number of a pipe in the target."""

    pid: int
    pidfd: int
    fd: int
    folder: str
    socket: socket.socket

    @property
    def file(self) -> str:
        return f"{self.folder}/file"

    @property
    def listener(self) -> str:
        return f"{self.folder}/listener"

    @property
    def new(self) -> str:
        return f"{self.folder}/new"


Attack = Callable[[Scene], object]


def call(name: str, *arguments: object) -> int:
    """A system call by its name. Raises OSError."""
    number = LIBSECCOMP.seccomp_syscall_resolve_name(name.encode())
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = LIBC.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


# --- attacks on another process ---


def read_memory(scene: Scene) -> None:
    os.pread(os.open(f"/proc/{scene.pid}/mem", os.O_RDONLY), 16, ADDRESS)


def copy_memory(name: str) -> Attack:
    here = ctypes.create_string_buffer(16)
    local = struct.pack("PN", ctypes.addressof(here), 16)
    remote = struct.pack("PN", ADDRESS, 16)
    return lambda scene: (here, call(name, scene.pid, local, 1, remote, 1, 0))


def queue_signal(*thread: int) -> Attack:
    siginfo = struct.pack("3i", signal.SIGKILL, 0, -1).ljust(128, b"\0")  # SI_QUEUE
    if not thread:
        return lambda scene: call("rt_sigqueueinfo", scene.pid, signal.SIGKILL, siginfo)
    return lambda scene: call("rt_tgsigqueueinfo", scene.pid, scene.pid, signal.SIGKILL, siginfo)


def own_by_ioctl(scene: Scene) -> None:
    """SIOCSPGRP: the socket's next event sends a signal to the process."""
    call("ioctl", scene.socket.fileno(), 0x8902, struct.pack("i", scene.pid))


AFFINITY = struct.pack("N", 1)
NO_LIMIT = struct.pack("2Q", 0, 0)
PERF = struct.pack("2I", 1, 64).ljust(64, b"\0")

#: What reads from or writes to another process's memory or descriptors.
LOOKS_IN: dict[str, Attack] = {
    "proc-mem": read_memory,
    "proc-fd": lambda scene: os.open(f"/proc/{scene.pid}/fd/{scene.fd}", os.O_RDONLY),
    "proc-maps": lambda scene: os.read(os.open(f"/proc/{scene.pid}/maps", os.O_RDONLY), 1),
    "process_vm_readv": copy_memory("process_vm_readv"),
    "process_vm_writev": copy_memory("process_vm_writev"),
    "ptrace-seize": lambda scene: call("ptrace", 0x4206, scene.pid, 0, 0),
    "ptrace-attach": lambda scene: call("ptrace", 16, scene.pid, 0, 0),
    "pidfd_getfd": lambda scene: call("pidfd_getfd", scene.pidfd, scene.fd, 0),
}

#: What signals or steers another process.
STEERS: dict[str, Attack] = {
    "pidfd_open": lambda scene: os.pidfd_open(scene.pid),
    "pidfd_send_signal": lambda scene: signal.pidfd_send_signal(scene.pidfd, signal.SIGKILL),
    "kill": lambda scene: os.kill(scene.pid, signal.SIGKILL),
    "kill-probe": lambda scene: os.kill(scene.pid, 0),
    "tkill": lambda scene: call("tkill", scene.pid, signal.SIGKILL),
    "tgkill": lambda scene: call("tgkill", scene.pid, scene.pid, signal.SIGKILL),
    "sigqueue": queue_signal(),
    "sigqueue-thread": queue_signal(1),
    "sigio-by-fcntl": lambda scene: call("fcntl", scene.socket.fileno(), 8, scene.pid),
    "sigio-by-ioctl": own_by_ioctl,
    "prlimit": lambda scene: call("prlimit64", scene.pid, resource.RLIMIT_CORE, NO_LIMIT, None),
    "sched_setaffinity": lambda scene: call("sched_setaffinity", scene.pid, 8, AFFINITY),
    "setpriority": lambda scene: call("setpriority", os.PRIO_PROCESS, scene.pid, 19),
    "ioprio_set": lambda scene: call("ioprio_set", 1, scene.pid, 3 << 13),
    "kcmp": lambda scene: call("kcmp", scene.pid, scene.pid, 1, 0, 0),
    "getpgid": lambda scene: call("getpgid", scene.pid),
}

# --- attacks on everything else ---

CLONE_ARGS = struct.pack("11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
RW_EXEC = 7
PRIVATE_ANONYMOUS = 0x22


def end_child(pid: int) -> None:
    if pid == 0:
        os._exit(0)


def make_executable(scene: Scene) -> None:
    page = call("mmap", 0, 4096, 3, PRIVATE_ANONYMOUS, -1, 0)
    call("mprotect", page, 4096, 5)


def execute_at(scene: Scene) -> None:
    call("execveat", -100, b"/bin/true", (ctypes.c_char_p * 2)(b"true", None), None, 0)


def open_handle(scene: Scene) -> None:
    call("open_by_handle_at", -100, struct.pack("2I8x", 8, 1), 0)


def name_handle(scene: Scene) -> None:
    handle = ctypes.create_string_buffer(struct.pack("2I", 128, 0), 136)
    call("name_to_handle_at", -100, scene.file.encode(), handle, ctypes.byref(ctypes.c_int()), 0)


def make_timer(scene: Scene) -> None:
    call("timer_create", 1, None, ctypes.byref(ctypes.c_int()))


#: What reaches files, the network, new processes, new descriptors or more of the kernel.
REACHES: dict[str, Attack] = {
    "connect": lambda scene: scene.socket.connect(scene.listener),
    "bind": lambda scene: scene.socket.bind(scene.new),
    "setsockopt": lambda scene: scene.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 9),
    "socket-unix": lambda _: socket.socket(socket.AF_UNIX),
    "socket-inet": lambda _: socket.socket(socket.AF_INET),
    "socket-netlink": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "socketpair": lambda _: socket.socketpair(),
    "open": lambda scene: call("open", scene.file.encode(), 0),
    "openat": lambda scene: os.open(scene.file, os.O_RDONLY),
    "openat2": lambda scene: call("openat2", -100, scene.file.encode(), bytes(24), 24),
    "creat": lambda scene: call("creat", scene.new.encode(), 0o600),
    "stat": lambda scene: os.stat(scene.file),
    "access": lambda scene: call("access", scene.file.encode(), 0),
    "readlink": lambda _: os.readlink("/proc/self/exe"),
    "listdir": lambda scene: os.listdir(scene.folder),
    "chdir": lambda _: os.chdir("/"),
    "unlink": lambda scene: os.unlink(scene.file),
    "rename": lambda scene: os.rename(scene.file, scene.new),
    "link": lambda scene: os.link(scene.file, scene.new),
    "symlink": lambda scene: os.symlink(scene.file, scene.new),
    "mkdir": lambda scene: os.mkdir(scene.new),
    "chmod": lambda scene: os.chmod(scene.file, 0o777),
    "truncate": lambda scene: os.truncate(scene.file, 0),
    "mknod": lambda scene: os.mkfifo(scene.new),
    "execve": lambda _: os.execv("/bin/true", ["true"]),
    "execveat": execute_at,
    "fork": lambda _: end_child(os.fork()),
    "clone": lambda _: end_child(call("clone", int(signal.SIGCHLD), 0, 0, 0, 0)),
    "clone-vfork": lambda _: end_child(call("clone", 0x4000 | signal.SIGCHLD, 0, 0, 0, 0)),
    "clone3": lambda _: end_child(call("clone3", CLONE_ARGS, len(CLONE_ARGS))),
    "prctl-dumpable": lambda _: call("prctl", 4, 1, 0, 0, 0),
    "personality": lambda _: call("personality", 0xFFFFFFFF),
    "setrlimit": lambda _: call("setrlimit", resource.RLIMIT_CORE, NO_LIMIT),
    "memfd_create": lambda _: os.memfd_create("x"),
    "shm_open": lambda _: os.open("/dev/shm", os.O_RDONLY),
    "shmget": lambda _: call("shmget", 0, 4096, 0o600),
    "mmap-exec": lambda _: call("mmap", 0, 4096, RW_EXEC, PRIVATE_ANONYMOUS, -1, 0),
    "mprotect-exec": make_executable,
    "epoll_create1": lambda _: select.epoll(),
    "eventfd": lambda _: os.eventfd(0),
    "pipe": lambda _: os.pipe(),
    "dup": lambda _: os.dup(2),
    "dup-by-fcntl": lambda _: call("fcntl", 2, 0, 10),
    "inotify": lambda _: call("inotify_init1", 0),
    "signalfd": lambda _: call("signalfd4", -1, bytes(8), 8, 0),
    "timer_create": make_timer,
    "name_to_handle_at": name_handle,
    "seccomp": lambda _: call("seccomp", 2, 0, struct.pack("I", 0x7FFF0000)),
}

#: What the kernel, too, may refuse to an ordinary user, each with another error.
KERNEL_MAY_REFUSE: dict[str, Attack] = {
    "listen": lambda scene: call("listen", scene.socket.fileno(), 1),
    "mq_open": lambda _: call("mq_open", b"spicetunnel-test", os.O_RDONLY, 0, None),
    "open_by_handle_at": open_handle,
    "io_uring_setup": lambda _: call("io_uring_setup", 1, bytes(120)),
    "io_uring_enter": lambda _: call("io_uring_enter", 0, 1, 0, 0, None, 0),
    "bpf": lambda _: call("bpf", 0, bytes(72), 72),
    "perf_event_open": lambda scene: call("perf_event_open", PERF, scene.pid, -1, -1, 0),
    "keyctl": lambda _: call("keyctl", 0, -3, 0),
    "add_key": lambda _: call("add_key", b"user", b"x", b"x", 1, -3),
    "request_key": lambda _: call("request_key", b"user", b"x", None, 0),
    "userfaultfd": lambda _: call("userfaultfd", 1),
    "setns": lambda scene: call("setns", scene.pidfd, 0x10000000),
    "unshare": lambda _: call("unshare", 0x10000000),
    "setuid": lambda _: os.setuid(0),
    "setgroups": lambda _: os.setgroups([0]),
    "chroot": lambda _: os.chroot("/"),
    "mount": lambda _: call("mount", b"none", b"/proc", b"proc", 0, None),
    "process_madvise": lambda scene: call("process_madvise", scene.pidfd, None, 0, 20, 0),
    "process_mrelease": lambda scene: call("process_mrelease", scene.pidfd, 0),
    "migrate_pages": lambda scene: call("migrate_pages", scene.pid, 0, None, None),
    "fanotify_init": lambda _: call("fanotify_init", 0, 0),
}


def vfork(scene: Scene) -> None:
    """Not tried without the sandbox: the child would run on this process's own stack."""
    call("vfork")


ON_PROCESSES = LOOKS_IN | STEERS
ALL = ON_PROCESSES | REACHES | KERNEL_MAY_REFUSE
WORKS_UNHINDERED = ON_PROCESSES | REACHES

# --- the processes ---


def become_ordinary() -> None:
    """Give up root. The process stays traceable, as one that systemd started as that user is."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(ORDINARY_UID)
        os.setuid(ORDINARY_UID)
        LIBC.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
    LIBC.prctl(0x59616D61, ctypes.c_long(-1), 0, 0, 0)  # PR_SET_PTRACER_ANY, for Yama


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a child and end it there. Returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        work()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def stay(name: bytes, channel: socket.socket) -> NoReturn:
    """Hold a secret, and say it when asked."""
    SECRET.value = name
    while channel.recv(1):
        channel.send(SECRET.value)
    os._exit(0)


def outcome(attack: Attack, scene: Scene) -> int:
    """The errno that stopped the attack, or 0."""
    try:
        attack(scene)
    except OSError as error:
        return error.errno or -1
    return 0


class Relay:
    """A parent and a session, and the channels on which the test asks whether they still live."""

    def __init__(self, folder: str, victim_isolated: bool) -> None:
        self.folder = folder
        self.isolated = victim_isolated
        self.sandbox = Sandbox()
        self.pipe, self.other_end = os.pipe()
        os.fchown(self.pipe, *OWNER)
        self.parent, self._parent_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.victim, self._victim_end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"{folder}/listener")
        os.chmod(f"{folder}/listener", 0o777)
        self._listener.listen()
        self.parent_pid = fork(self._be_parent)
        self.victim_pid = int(self.parent.recv(100))

    def _be_parent(self) -> None:
        become_ordinary()
        pid = fork(self._be_victim)
        self._parent_end.send(str(pid).encode())
        stay(b"parent", self._parent_end)

    def _be_victim(self) -> None:
        LIBC.prctl(0x59616D61, ctypes.c_long(-1), 0, 0, 0)
        if self.isolated:
            kept = (self._victim_end.fileno(), self._listener.fileno(), self.pipe)
            self.sandbox.isolate(kept)
        stay(b"victim", self._victim_end)

    def attack(self, attack: Attack, target: str = "victim", isolated: bool = True) -> int:
        """Run it in one more process of the same user. Returns the errno, or 0 if it succeeded."""
        pid = self.parent_pid if target == "parent" else self.victim_pid
        assert self.secret(target) == target  # it is up
        report, end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        attacker = fork(lambda: self._be_attacker(end, attack, pid, isolated))
        end.close()
        answer = report.recv(100)
        report.close()
        assert os.waitpid(attacker, 0)[1] == 0
        return int(answer or b"0")  # without an answer, /bin/true ran in its place

    def _be_attacker(self, end: socket.socket, attack: Attack, pid: int, isolated: bool) -> None:
        become_ordinary()
        spare = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        scene = Scene(pid, os.pidfd_open(pid), self.pipe, self.folder, spare)
        if isolated:
            self.sandbox.isolate([end.fileno(), spare.fileno(), scene.pidfd])
        end.send(str(outcome(attack, scene)).encode())

    def secret(self, of: str) -> str:
        channel = self.parent if of == "parent" else self.victim
        channel.settimeout(10)
        channel.send(b"?")
        return channel.recv(16).decode()

    def end(self) -> None:
        for pid in (self.victim_pid, self.parent_pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(self.parent_pid, 0)
        for end in (self.parent, self._parent_end, self.victim, self._victim_end, self._listener):
            end.close()
        os.close(self.pipe)
        os.close(self.other_end)


@contextlib.contextmanager
def relay(victim_isolated: bool = True) -> Iterator[Relay]:
    folder = tempfile.mkdtemp(prefix="isolation-")
    with open(f"{folder}/file", "w", encoding="ascii"):
        pass
    os.chown(folder, *OWNER)
    os.chown(f"{folder}/file", *OWNER)
    relay = Relay(folder, victim_isolated)
    try:
        yield relay
    finally:
        relay.end()
        shutil.rmtree(folder)


# --- tests of what is taken away ---


@pytest.mark.parametrize("name", [*ALL, "vfork"])
def test_session_cannot(name: str) -> None:
    with relay() as stage:
        assert stage.attack(ALL.get(name, vfork)) == DENIED
        assert stage.secret("victim") == "victim"


@pytest.mark.parametrize("name", ON_PROCESSES)
def test_session_cannot_do_to_the_parent(name: str) -> None:
    with relay() as stage:
        assert stage.attack(ON_PROCESSES[name], target="parent") == DENIED
        assert stage.secret("parent") == "parent"


@pytest.mark.parametrize("name", WORKS_UNHINDERED)
def test_without_the_sandbox_it_succeeds(name: str) -> None:
    with relay(victim_isolated=False) as stage:
        assert stage.attack(WORKS_UNHINDERED[name], isolated=False) == 0


@pytest.mark.parametrize("name", KERNEL_MAY_REFUSE)
def test_without_the_sandbox_it_reaches_the_kernel(name: str) -> None:
    with relay(victim_isolated=False) as stage:
        assert stage.attack(KERNEL_MAY_REFUSE[name], isolated=False) != DENIED


@pytest.mark.parametrize("name", LOOKS_IN)
def test_other_process_of_the_user_cannot_look_into_a_session(name: str) -> None:
    """A process without a sandbox, against one that is not dumpable."""
    with relay() as stage:
        denied = stage.attack(LOOKS_IN[name], isolated=False)
        assert denied in {errno.EPERM, errno.EACCES}
        assert stage.secret("victim") == "victim"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="an entry of x86 only")
def test_calls_of_another_architecture_end_the_process() -> None:
    getpid = b"\xb8\x14\0\0\0\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(getpid)
    run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))

    assert Inside(lambda _: run()).status == signal.SIGSYS


# --- tests of the sandbox itself ---


class Inside:
    """An isolated process that does `work` with its end of a channel, and then ends.

    `log` is what it wrote to stderr, `status` how it ended, both once it has.
    """

    def __init__(self, work: Callable[[socket.socket], object], *keep: int) -> None:
        self.channel, self._end = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.channel.settimeout(10)
        self._log, self._stderr = os.pipe()
        self._work, self._keep = work, keep
        sandbox = Sandbox()
        self.pid = fork(lambda: self._run(sandbox))
        self._end.close()
        os.close(self._stderr)

    def _run(self, sandbox: Sandbox) -> None:
        for standard in (0, 1, 2):
            os.dup2(self._stderr, standard)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        sandbox.isolate(iter([self._end.fileno(), *self._keep]))
        self._work(self._end)

    @functools.cached_property
    def log(self) -> str:
        with os.fdopen(self._log) as file:
            return file.read()

    @functools.cached_property
    def status(self) -> int:
        """0, or the signal or exit code that it ended with."""
        assert self.log is not None
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.channel.close()
        return abs(code)


def test_only_the_given_descriptors_are_left() -> None:
    stray, kept = os.pipe()

    def list_open(channel: socket.socket) -> None:
        poller = select.poll()
        for fd in range(4096):
            poller.register(fd)
        closed = {fd for fd, events in poller.poll() if events & select.POLLNVAL}
        channel.send(json.dumps(sorted(set(range(4096)) - closed)).encode())
        channel.send(json.dumps([channel.fileno()]).encode())

    inside = Inside(list_open, kept)
    left, (channel,) = (json.loads(inside.channel.recv(9999)) for _ in range(2))
    assert left == sorted([0, 1, 2, kept, channel])
    assert (inside.log, inside.status) == ("", 0)
    os.close(stray)
    os.close(kept)


def test_a_print_goes_nowhere_and_standard_input_is_empty() -> None:
    def work(channel: socket.socket) -> None:
        os.write(1, b"to nobody")
        channel.send(json.dumps(len(os.read(0, 10))).encode())

    inside = Inside(work)
    assert inside.channel.recv(10) == b"0"
    assert (inside.log, inside.status) == ("", 0)


def test_no_core_no_new_privileges_and_a_filter() -> None:
    inside = Inside(lambda channel: (channel.send(b"up"), channel.recv(1)))
    inside.channel.recv(10)
    with open(f"/proc/{inside.pid}/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert resource.prlimit(inside.pid, resource.RLIMIT_CORE) == (0, 0)
    inside.channel.send(b"x")
    assert inside.status == 0


def send_and_end(end: socket.socket, data: bytes) -> None:
    end.sendall(data)
    end.shutdown(socket.SHUT_WR)


def test_bytes_of_received_descriptors_are_moved() -> None:
    """As a channel: two sockets come over the broker's, one epoll, nonblocking, half-close."""
    poller = select.epoll()

    def move(channel: socket.socket) -> None:
        packet, fds = fdpass.receive(channel, 2)
        viewer, vm = (socket.socket(fileno=fd) for fd in fds)
        viewer.setblocking(False)
        poller.register(viewer, select.EPOLLIN)
        buffer = memoryview(bytearray(1 << 18))
        while poller.poll(10) and (count := viewer.recv_into(buffer)):
            vm.sendall(buffer[:count], socket.MSG_NOSIGNAL)
        poller.modify(viewer, select.EPOLLOUT)
        poller.unregister(viewer)
        vm.shutdown(socket.SHUT_WR)
        fdpass.send(channel, json.dumps({"after": json.loads(packet)}).encode(), (vm.fileno(),))
        viewer.close()
        vm.close()
        poller.close()

    inside = Inside(move, poller.fileno())
    viewer, viewer_end = socket.socketpair()
    vm, vm_end = socket.socketpair()
    with viewer, viewer_end, vm, vm_end, poller:
        fdpass.send(inside.channel, b"[1]", (viewer_end.fileno(), vm_end.fileno()))
        viewer_end.close()
        vm_end.close()
        sent = os.urandom(1 << 20)
        writer = threading.Thread(target=send_and_end, args=(viewer, sent))
        writer.start()
        with vm.makefile("rb") as file:
            assert file.read() == sent
        writer.join()
        answer, duplicates = fdpass.receive(inside.channel, 1)
    fdpass.close_all(duplicates)
    assert json.loads(answer) == {"after": [1]}
    assert (inside.log, inside.status) == ("", 0)


def test_new_broker_is_accepted_and_known() -> None:
    with tempfile.TemporaryDirectory() as folder:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(f"{folder}/s")
        listener.listen()
        listener.settimeout(10)

        def accept(channel: socket.socket) -> None:
            broker, _ = listener.accept()
            with broker:
                who = broker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                broker.send(json.dumps(struct.unpack("3i", who)).encode())

        inside = Inside(accept, listener.fileno())
        with listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as broker:
            broker.connect(f"{folder}/s")
            assert json.loads(broker.recv(99)) == [os.getpid(), os.getuid(), os.getgid()]
        assert (inside.log, inside.status) == ("", 0)


def test_memory_grows_and_shrinks() -> None:
    def work(channel: socket.socket) -> None:
        for size in (1 << 10, 1 << 18, 1 << 26):
            block = bytearray(size)
            block.extend(bytes(size))
            many = [bytes(100) for _ in range(size >> 7)]
            del many, block
        channel.send(b"done")

    inside = Inside(work)
    assert inside.channel.recv(10) == b"done"
    assert (inside.log, inside.status) == ("", 0)


def test_clocks_and_signal_handlers_work() -> None:
    def work(channel: socket.socket) -> None:
        assert time.monotonic() > 0
        assert time.time() > 0
        channel.send(b"up")
        channel.recv(1)  # the signal interrupts it, and Python goes on
        channel.send(b"end")

    def handle(number: int, frame: object) -> None:
        os.write(2, b"handled\n")

    before = signal.signal(signal.SIGTERM, handle)
    try:
        inside = Inside(work)
    finally:
        signal.signal(signal.SIGTERM, before)
    inside.channel.recv(10)
    os.kill(inside.pid, signal.SIGTERM)
    time.sleep(0.05)
    inside.channel.send(b"x")
    assert inside.channel.recv(10) == b"end"
    assert (inside.log, inside.status) == ("handled\n", 0)


def test_traceback_is_printed_without_its_source() -> None:
    def work(channel: socket.socket) -> None:
        linecache.clearcache()
        raise RuntimeError("it broke")

    inside = Inside(work)
    assert inside.status == 70
    assert inside.log.startswith("Traceback (most recent call last):\n")
    assert inside.log.endswith("RuntimeError: it broke\n")
    assert "raise RuntimeError" not in inside.log


def test_traceback_of_the_traceback_module_is_formatted_too() -> None:
    def work(channel: socket.socket) -> None:
        linecache.clearcache()
        try:
            json.loads("{")
        except ValueError:
            channel.send(traceback.format_exc().encode())

    inside = Inside(work)
    assert "JSONDecodeError" in inside.channel.recv(9999).decode()
    assert (inside.log, inside.status) == ("", 0)


def test_kernel_that_refuses_the_filter_is_an_error() -> None:
    sandbox = Sandbox()
    sandbox._program.length = 0

    def isolate() -> None:
        with pytest.raises(SpicetunnelError, match="cannot isolate the session"):
            sandbox.isolate([])

    assert os.waitpid(fork(isolate), 0)[1] == 0


def test_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str | None, **_: object) -> object:
        raise OSError("libseccomp.so.2: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(SpicetunnelError, match="cannot load libseccomp") as caught:
        Sandbox()
    assert "libseccomp2" in caught.value.hint


def test_library_that_does_not_know_a_call_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "ALLOWED", ("no_such_call",))
    with pytest.raises(SpicetunnelError, match="the rule for no_such_call"):
        Sandbox()
