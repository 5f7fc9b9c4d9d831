import os
import platform
from typing import NoReturn

import pytest
from spice_connect import install
from spice_connect.errors import UnavailableError
from spice_connect.viewer import process as viewer
from spice_connect.viewer.command import ViewerCommand


@pytest.fixture(autouse=True)
def _no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize(
    ("name", "like", "hint"),
    [
        ("debian", "", "sudo apt install virt-viewer"),
        ("linuxmint", "ubuntu debian", "sudo apt install virt-viewer"),
        ("rocky", "rhel centos fedora", "sudo dnf install virt-viewer"),
        ("opensuse-leap", "suse opensuse", "sudo zypper install virt-viewer"),
        ("endeavouros", "arch", "sudo pacman -S virt-viewer"),
        ("alpine", "", "sudo apk add virt-viewer"),
        ("nixos", "", "install the package virt-viewer"),
        ("$(x)", "; rm", "install the package virt-viewer"),
    ],
)
def test_the_command_of_each_distribution(name: str, like: str, hint: str) -> None:
    assert install.how_to("virt-viewer", {"ID": name, "ID_LIKE": like}) == hint


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert install.how_to("virt-viewer", {"ID": "fedora"}) == "dnf install virt-viewer"


def test_an_unknown_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> NoReturn:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    assert install.how_to("virt-viewer") == "install the package virt-viewer"


@pytest.mark.parametrize(
    ("program", "hint"),
    [
        ("remote-viewer", "sudo pacman -S virt-viewer, or set"),
        ("spicy-of-mine", "install it, or set"),
    ],
)
def test_a_missing_viewer_s_hint(monkeypatch: pytest.MonkeyPatch, program: str, hint: str) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "arch"})
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UnavailableError) as caught:
        viewer.check(ViewerCommand((program,)))
    assert caught.value.hint.startswith(hint)
