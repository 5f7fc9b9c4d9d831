"""Started from the desktop, by an icon or a URI: without a terminal that the user sees."""

import os
import shutil

#: Tried if ssh's default, /usr/bin/ssh-askpass, is missing.
ASKPASS = (
    *("ssh-askpass", "ksshaskpass", "gnome-ssh-askpass", "x11-ssh-askpass", "lxqt-openssh-askpass"),
    *("/usr/libexec/openssh/gnome-ssh-askpass", "/usr/lib/openssh/gnome-ssh-askpass"),
    "/usr/lib/ssh/x11-ssh-askpass",
)


def has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def without_terminal() -> bool:
    # /dev/tty does not tell: with startx there is one behind the desktop.
    return has_display() and not any(map(os.isatty, range(3)))


def ask_on_the_desktop() -> None:
    """Have ssh show its prompts in a window, if a program for that is installed."""
    found = os.environ.get("SSH_ASKPASS") or next(filter(None, map(shutil.which, ASKPASS)), None)
    if found:
        os.environ["SSH_ASKPASS"] = found
        os.environ.setdefault("SSH_ASKPASS_REQUIRE", "force")  # since OpenSSH 8.4
