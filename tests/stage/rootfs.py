"""The root file system of the real hosts: Debian's own packages, unpacked once and kept.

It takes a minute or two to build, and 300 MB in a cache directory, where it stays until the list of
packages changes. Nobody writes to it: each host is an overlay on it (realhost.py).
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from tests.stage.command import run, uninterrupted
from tests.stage.waiting import StageError

CACHE = Path("/var/cache/spicetunnel-stage")
BASE = CACHE / "base"
#: What BASE was built from.
STAMP = CACHE / "base-made-for"

#: Debian packages, on top of the essential ones and apt.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus"),  # the service manager as PID 1, and systemctl
    *("openssh-server", "libpam-systemd"),  # logins that systemd-logind hears of
    *("python3", "python3-venv"),  # the product
    "acl",  # rights at sockets and directories
    "tzdata",
    "libnss-extrausers",  # accounts in a file of its own: a directory that can be taken away
    *("iproute2", "procps"),  # ss and ip, ps: what a person looks with when a test fails
)

#: Where a Debian machine names its archive. Others, of other software, are not asked.
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources"))

#: What an installer would write. Without a machine id, systemd takes the boot for the first one and
#: enables every unit.
FILES = {
    "etc/machine-id": "5bc7e11f5a0e4d0cb6c1a9d6f3e2a701\n",
    "etc/hostname": "kvmhost\n",
    "etc/hosts": "127.0.0.1 localhost kvmhost\n",
}


def root_file_system() -> Path:
    """The directory of a root file system with PACKAGES, of the release that this machine has."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    stamp = "\n".join([release, *PACKAGES, *FILES.values()])
    if not STAMP.is_file() or STAMP.read_text() != stamp:
        # One that is cut short leaves no stamp, and the next one starts from nothing.
        remove_root_file_system()
        _build(release)
        STAMP.write_text(stamp)
    return BASE


def remove_root_file_system() -> None:
    with uninterrupted():
        STAMP.unlink(missing_ok=True)
        shutil.rmtree(BASE, ignore_errors=True)


def _build(release: str) -> None:
    sources = [str(path) for path in SOURCES if path.is_file()]
    if not sources:
        raise StageError(f"no apt sources of Debian: neither {SOURCES[0]} nor {SOURCES[1]}")
    CACHE.mkdir(mode=0o700, exist_ok=True)
    options = ("--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}")
    run("mmdebstrap", "--quiet", *options, release, str(BASE), *sources)
    for path, text in FILES.items():
        (BASE / path).write_text(text)
