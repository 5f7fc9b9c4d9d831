import ctypes
import os
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from spice_connect.errors import UnavailableError
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.ui.terminal import clean
from spice_connect.viewer import process as viewer
from spice_connect.viewer.command import ViewerCommand

NEAR = LocalEnd("/run/x/spice")
TITLES = st.text(st.characters(exclude_categories=())) | st.text("\\ \t\r\n=[]#;sntr%d")


def read_key_file(text: str) -> dict[str, str]:
    """The rules of GKeyFile: comments, groups, chugged values, five escapes, the last key wins."""
    group, keys = "", {}
    for line in text.split("\n"):
        if line.startswith("[") and line.rstrip().endswith("]"):
            group = line.rstrip()[1:-1]
        elif line.strip() and not line.startswith("#"):
            key, _, value = line.partition("=")
            keys[f"{group}/{key.strip()}"] = unescape(value.lstrip(" \t\f\r"))
    return keys


def unescape(value: str) -> str:
    plain, characters = "", iter(value)
    for character in characters:
        codes = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
        plain += codes[next(characters)] if character == "\\" else character
    return plain


@given(st.text(min_size=1).filter(str.isprintable))
@example(" a\\sb=c#[x];")
def test_a_password_is_read_back_and_the_file_is_to_be_deleted(password: str) -> None:
    keys = read_key_file(viewer.connection_file(viewer.Console(NEAR, "T", password)))
    assert keys["virt-viewer/password"] == password
    assert keys["virt-viewer/delete-this-file"] == "1"
    assert len(keys) == 5


@given(TITLES)
def test_a_title_is_read_back_and_adds_no_key(title: str) -> None:
    keys = read_key_file(viewer.connection_file(viewer.Console(NEAR, title)))
    assert keys == {
        "virt-viewer/type": "spice",
        "virt-viewer/unix-path": "/run/x/spice",
        "virt-viewer/title": clean(title).replace("%d", "%\u2060d"),
        "virt-viewer/delete-this-file": "0",
    }


@example("a\nhost=b\r\tc\\n")
@given(st.text(st.characters(exclude_categories=["Cc"], include_characters="\t\r\n")))
def test_line_breaks_are_escaped(title: str) -> None:
    """Even if `clean` let one through, it would add no key."""
    assert read_key_file(f"[g]\nk={viewer._escape(title)}") == {"g/k": title}


@given(TITLES)
def test_the_real_glib_reads_the_same(title: str) -> None:
    glib = ctypes.CDLL("libglib-2.0.so.0")
    for name in ("g_key_file_new", "g_key_file_get_string"):
        getattr(glib, name).restype = ctypes.c_void_p
    keys = ctypes.c_void_p(glib.g_key_file_new())
    text = viewer.connection_file(viewer.Console(NEAR, title)).encode()
    assert glib.g_key_file_load_from_data(keys, text, ctypes.c_size_t(len(text)), 0, None)
    address = glib.g_key_file_get_string(keys, b"virt-viewer", b"title", None)
    assert ctypes.string_at(address).decode() == clean(title).replace("%d", "%\u2060d")
    glib.g_free(ctypes.c_void_p(address))
    glib.g_key_file_free(keys)


def test_the_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = viewer.write_connection_file(
            str(tmp_path), viewer.connection_file(viewer.Console(NEAR, "T"))
        )
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(FileExistsError):
        viewer.write_connection_file(
            str(tmp_path), viewer.connection_file(viewer.Console(NEAR, "T"))
        )


def test_a_missing_viewer_is_reported_before_the_login() -> None:
    with pytest.raises(UnavailableError, match="not installed"):
        viewer.check(ViewerCommand(("nonexistent-viewer",)))


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a remote-viewer and without a display; its runtime directory."""
    program = tmp_path / "remote-viewer"
    program.touch(0o755)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "GDK_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


REMOTE = ViewerCommand(("remote-viewer",))


def test_a_viewer_without_a_display_is_reported_before_the_login(no_display: Path) -> None:
    with pytest.raises(UnavailableError, match="no display here for remote-viewer") as caught:
        viewer.check(REMOTE)
    assert "--no-viewer" in caught.value.hint
    with pytest.raises(UnavailableError):
        viewer.check(ViewerCommand((f"{no_display}/remote-viewer", "{file}")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DISPLAY", ":0"),
        ("WAYLAND_DISPLAY", "wayland-1"),
        ("WAYLAND_SOCKET", "5"),
        ("GDK_BACKEND", "broadway"),
    ],
)
@pytest.mark.usefixtures("no_display")
def test_a_display_is_named_by_any_of_these(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    viewer.check(REMOTE)


def test_a_display_may_be_found_without_a_name(no_display: Path) -> None:
    """An option of GTK's, and the socket that libwayland takes by default."""
    viewer.check(REMOTE._replace(arguments=("--display=:7",)))
    (no_display / "wayland-0").touch()
    viewer.check(REMOTE)


def test_a_script_may_need_no_display(no_display: Path) -> None:
    (no_display / "my-viewer").touch(0o755)
    viewer.check(ViewerCommand(("my-viewer",)))
