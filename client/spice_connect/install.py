"""The command that installs a package on this distribution."""

import os
from collections.abc import Mapping

#: By the ID or ID_LIKE of os-release(5); ID counts first.
COMMANDS = {
    "debian": "apt install",
    "ubuntu": "apt install",
    "fedora": "dnf install",
    "rhel": "dnf install",
    "suse": "zypper install",
    "opensuse": "zypper install",
    "arch": "pacman -S",
    "alpine": "apk add",
}

#: Packages whose name differs from Debian's.
NAMES = {
    ("dnf install", "openssh-client"): "openssh-clients",
    ("zypper install", "openssh-client"): "openssh-clients",
    ("pacman -S", "openssh-client"): "openssh",
}


def how_to(package: str, release: Mapping[str, str] | None = None) -> str:
    """A hint: how to install the package that Debian calls `package`. `release`: for tests."""
    release = _release() if release is None else release
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    command = next((COMMANDS[name] for name in names if name in COMMANDS), "")
    if not command:
        return f"install the package {package}"
    package = NAMES.get((command, package), package)
    return f"{command} {package}" if os.geteuid() == 0 else f"sudo {command} {package}"


def _release() -> Mapping[str, str]:
    import platform  # noqa: PLC0415 - rarely used, and slow to import

    try:
        return platform.freedesktop_os_release()
    except (OSError, ValueError):  # there is none, or it is not UTF-8
        return {}
