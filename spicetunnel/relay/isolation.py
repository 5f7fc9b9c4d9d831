"""Shuts a session's process in: it keeps the descriptors that it was given, and nothing else.

All sessions run as one system user. Without this, whoever takes a session's process over by the
bytes of its viewer reads the memory and the descriptors of every other session, and ends them.
Three steps take that away:

- All other descriptors are closed.
- The process is not dumpable: no unprivileged process can trace it or look into its /proc/PID.
- A seccomp filter lets through only the system calls that moving bytes needs. None of them takes
  a path or a process. sendto and sendmsg take an address, but only datagram sockets look at it,
  and a session must never be given one.

libseccomp knows the numbers of the calls on every architecture. It compiles the filter once, in
the parent: the child loads the ready program with one call.

A call that is not allowed fails with ENOSYS. With EPERM, a C library that learns a newer call would
not fall back to the old one, and with a kill it would end people's sessions.
"""

import ctypes
import errno
import os
import resource
import termios
from collections.abc import Iterable
from mmap import PROT_EXEC

from spicetunnel.common.errors import SpicetunnelError

# <linux/prctl.h>, <linux/seccomp.h>
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

# <seccomp.h>
_ACT_ALLOW = 0x7FFF0000
_ACT_REFUSE = 0x00050000 | errno.ENOSYS
_CMP_EQ = 4
_CMP_MASKED_EQ = 7
_NO_SUCH_CALL = -1

_HIGHEST_FD = 2**31 - 1


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp: what argument number `arg` must be.

    It must equal a; with _CMP_MASKED_EQ, its bits in the mask a must equal b.
    """

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class _Program(ctypes.Structure):
    """struct sock_fprog: instructions of 8 bytes each."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


_NOT_EXECUTABLE = _Compare(2, _CMP_MASKED_EQ, PROT_EXEC, 0)

#: The calls that work without a condition. Names that an architecture lacks are passed over.
ALLOWED = (
    # The bytes of the channels.
    *("recvfrom", "sendto", "shutdown", "close"),
    # The broker: packets with descriptors, and who a new broker at the listener is.
    *("recvmsg", "sendmsg", "accept4", "getsockopt", "getsockname"),
    # Waiting; poll is what a socket with a timeout waits with.
    *("epoll_wait", "epoll_pwait", "epoll_ctl", "poll", "ppoll"),
    # The log on stderr, pipes, and recordings that came as open descriptors.
    *("read", "write"),
    # The clock, where the vDSO has none.
    "clock_gettime",
    # Memory, see also CONDITIONAL.
    *("brk", "munmap", "mremap", "madvise"),
    # Python and the C library: locks, signal handlers, seeds, the process's own id.
    *("futex", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "restart_syscall"),
    *("getrandom", "getpid"),
    "exit_group",
)

#: The calls that work with one condition.
CONDITIONAL = (
    ("mmap", _NOT_EXECUTABLE),
    ("mprotect", _NOT_EXECUTABLE),
    # socket.setblocking. Other requests would reach terminals, or (SIOCSPGRP) send signals.
    ("ioctl", _Compare(1, _CMP_EQ, termios.FIONBIO, 0)),
)


class Sandbox:
    """The compiled filter, made once in the parent and used in each child.

    Raises SpicetunnelError if libseccomp is missing or cannot compile it.
    """

    def __init__(self) -> None:
        filter_ = _compile()
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
        self._null = os.open(os.devnull, os.O_RDWR)
        self._program = _Program(len(filter_) // 8, filter_)

    def isolate(self, keep: Iterable[int]) -> None:
        """Shut this process in for good, with the descriptors of `keep`, and stderr.

        It must have one thread, and everything that it will use must be imported already: an import
        of a new module raises OSError.
        Raises SpicetunnelError or OSError if any step fails: then the process has to end.
        """
        kept = set(keep)
        self._seal_standard_streams(kept)
        _close_all_but(kept)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._set(_PR_SET_DUMPABLE, 0)
        self._set(_PR_SET_NO_NEW_PRIVS, 1)
        self._set(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(self._program))

    def _seal_standard_streams(self, keep: set[int]) -> None:
        """Input and output become /dev/null.

        A channel would get a number that is free there, and a viewer would get a stray print.
        """
        for fd in {0, 1} - keep:
            os.dup2(self._null, fd)

    def _set(self, option: int, value: int, pointer: int = 0) -> None:
        if self._prctl(option, value, pointer, 0, 0):
            word = os.strerror(ctypes.get_errno())
            raise SpicetunnelError(
                f"cannot isolate the session: prctl option {option}: {word.lower()}",
                hint="the kernel must have CONFIG_SECCOMP_FILTER",
            )


def _close_all_but(keep: set[int]) -> None:
    """Close descriptors from 3 on: one call of close_range(2) for each gap between the kept ones.

    An empty gap is left out: os.closerange(0, 0) closes everything (CPython 3.11).
    """
    start = 3
    for fd in sorted(keep | {_HIGHEST_FD}):
        if start < fd:
            os.closerange(start, fd)
        start = max(start, fd + 1)


def _compile() -> bytes:
    """The filter as a BPF program of this machine's architecture."""
    library = _load_library()
    context = library.seccomp_init(_ACT_REFUSE)
    if not context:
        raise _refused("seccomp_init")
    try:
        for name in ALLOWED:
            _allow(library, context, name)
        for name, condition in CONDITIONAL:
            _allow(library, context, name, condition)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _load_library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise SpicetunnelError(
            f"cannot load libseccomp, which isolates the sessions: {error}",
            hint="install libseccomp2 (Debian) or libseccomp (Fedora, RHEL)",
        ) from None
    context = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_init.restype = context
    library.seccomp_release.argtypes = (context,)
    library.seccomp_export_bpf.argtypes = (context, ctypes.c_int)
    library.seccomp_rule_add_array.argtypes = (
        *(context, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Compare),
    )
    return library


def _allow(library: ctypes.CDLL, context: int, name: str, *conditions: _Compare) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    array = (_Compare * len(conditions))(*conditions)
    if number == _NO_SUCH_CALL or library.seccomp_rule_add_array(
        context, _ACT_ALLOW, number, len(conditions), array
    ):
        raise _refused(f"the rule for {name}")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    with open(os.memfd_create("seccomp filter"), "r+b", buffering=0) as file:
        if library.seccomp_export_bpf(context, file.fileno()):
            raise _refused("seccomp_export_bpf")
        file.seek(0)
        return file.read()


def _refused(what: str) -> SpicetunnelError:
    return SpicetunnelError(
        f"libseccomp cannot build the filter that isolates the sessions: {what} failed",
        hint="upgrade libseccomp2 (Debian) or libseccomp (Fedora, RHEL)",
    )
