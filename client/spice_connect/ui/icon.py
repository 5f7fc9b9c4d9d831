"""Started by an icon or a link: there is a desktop, and no terminal that anybody sees."""

import os
import shutil

#: Where ssh's own default, /usr/bin/ssh-askpass, is missing.
ASKPASS = (
    *("ssh-askpass", "ksshaskpass", "gnome-ssh-askpass", "x11-ssh-askpass", "lxqt-openssh-askpass"),
    *("/usr/libexec/openssh/gnome-ssh-askpass", "/usr/lib/openssh/gnome-ssh-askpass"),
    "/usr/lib/ssh/x11-ssh-askpass",
)


def has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def without_terminal() -> bool:
    # Not by /dev/tty: a session that came from startx has one, behind the desktop.
    return has_display() and not any(map(os.isatty, range(3)))


def ask_on_the_desktop() -> None:
    """Ssh's prompts, in a window; where nothing can show one, ssh does as it always does."""
    found = os.environ.get("SSH_ASKPASS") or next(filter(None, map(shutil.which, ASKPASS)), None)
    if found:
        os.environ["SSH_ASKPASS"] = found
        os.environ.setdefault("SSH_ASKPASS_REQUIRE", "force")  # since 8.4
