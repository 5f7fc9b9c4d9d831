"""Menu entries: a VM in the user's menu, and the handler of spice-connect: URIs.

Files of the desktop entry specification, in the user's ~/.local/share/applications.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from spice_connect.errors import UsageError
from spice_connect.files import base_directory, replace
from spice_connect.names import URI_SCHEME
from spice_connect.ui.terminal import UNSAFE

#: To be escaped in an Exec line. All arguments are quoted, which the specification allows.
QUOTED = re.compile(r'(["`$\\])')
HANDLER = "spice-connect-handler.desktop"
#: No VM has this file: theirs have a dash and a name behind spice-connect.
LIST = "spice-connect.desktop"


def put_vm(vm: str, options: Sequence[str], arguments: Sequence[str]) -> str:
    """Write the entry of a VM; return its path. `arguments` are for the viewer."""
    mark = ["--"] if arguments else []
    exec_line = _exec([*_program(), *options, vm, *mark, *arguments])
    keys = {"Name": vm, "Comment": "Open the desktop of this VM", "Exec": exec_line}
    return _write(f"spice-connect-{vm}.desktop", _entry(keys))


def put_list(options: Sequence[str]) -> str:
    """Write the entry that shows the list of VMs in a window; return its path."""
    keys = {
        "Name": "My VMs",
        "Comment": "Choose a VM and open its desktop",
        "Exec": _exec([*_program(), *options, "--window"]),
    }
    return _write(LIST, _entry(keys))


def put_handler(options: Sequence[str]) -> str:
    """Write the entry that handles URIs, and make it the default; return its path."""
    keys = {
        "Name": "spice-connect",
        "Comment": "Open spice-connect: URIs",
        "Exec": _exec([*_program(), *options, "--"]) + " %u",
        "MimeType": f"x-scheme-handler/{URI_SCHEME};",
        "NoDisplay": "true",
    }
    path = _write(HANDLER, _entry(keys))
    _run("update-desktop-database", os.path.dirname(path))
    _run("xdg-mime", "default", HANDLER, f"x-scheme-handler/{URI_SCHEME}")
    return path


def _entry(keys: dict[str, str]) -> str:
    always = {"Type": "Application", "Terminal": "false", "Icon": "computer"}
    settings = {**always, "Categories": "Network;RemoteAccess;", **keys}
    return "[Desktop Entry]\n" + "".join(f"{key}={value}\n" for key, value in settings.items())


def _exec(argv: Sequence[str]) -> str:
    """An Exec line: each word quoted as an argument, then as a string of a desktop entry."""
    if any(UNSAFE.search(word) for word in argv):
        raise UsageError("a menu entry holds no control characters", "leave them out")
    quoted = ('"' + QUOTED.sub(r"\\\1", word).replace("%", "%%") + '"' for word in argv)
    return " ".join(quoted).replace("\\", "\\\\")


def _program() -> list[str]:
    """How to start us. An absolute path: the desktop may have another PATH than our shell."""
    found = shutil.which(sys.argv[0])
    if found and os.path.basename(found) == "spice-connect":
        return [os.path.abspath(found)]
    return [sys.executable, "-m", "spice_connect"]


def _write(name: str, text: str) -> str:
    path = f"{base_directory('XDG_DATA_HOME', '~/.local/share')}/applications/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    replace(path, text.encode())
    return path


def _run(*argv: str) -> None:
    """Failures are ignored: then the desktop finds the entry by itself, later."""
    null = subprocess.DEVNULL
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=10, check=False)
