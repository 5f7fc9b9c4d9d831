"""Menu entries, checked by desktop-file-validate and started by gio."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from spice_connect.errors import UsageError
from spice_connect.ui import desktop

from tests.unit.client.fakes import Stage, eventually


@pytest.fixture(autouse=True)
def _data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def validate(path: str) -> None:
    done = subprocess.run(
        ["desktop-file-validate", path], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_an_icon_is_valid_and_is_in_the_menu(tmp_path: Path) -> None:
    path = desktop.put_vm("vm1", ["--host=kvm"], ())
    assert path == str(tmp_path / "data/applications/spice-connect-vm1.desktop")
    validate(path)
    text = Path(path).read_text()
    assert "\nName=vm1\n" in text
    assert "\nTerminal=false\n" in text
    assert text.endswith(' "--host=kvm" "vm1"\n')


ODD = ["a b", 'a"b', "a\\b", "$HOME", "`x`", "%u", "100%", "'", "ü", "~", ";", "#", "*", "&|<>()"]


def test_the_desktop_passes_every_argument_unchanged(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.script("a program", 'note("argv " + json.dumps(sys.argv[1:]))')
    monkeypatch.setattr(desktop, "_program", lambda: [str(stage.home / "a program")])
    path = desktop.put_vm("vm1", [], ODD)
    validate(path)
    subprocess.run(["gio", "launch", path], check=True, env=stage.environment, timeout=10)
    assert json.loads(stage.noted("argv")) == ["vm1", "--", *ODD]


@pytest.mark.parametrize("word", ["a\nExec=x", "\x1b", "\udcff"])
def test_words_that_a_menu_entry_cannot_hold_are_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(UsageError, match="control characters"):
        desktop.put_vm("vm1", [], [word])
    assert not (tmp_path / "data").exists()


def test_an_icon_is_replaced_atomically(tmp_path: Path) -> None:
    path = desktop.put_vm("vm1", [], ())
    with open(path) as before:
        desktop.put_vm("vm1", ["--host=kvm"], ())
        assert "--host" not in before.read()
    assert os.listdir(tmp_path / "data/applications") == ["spice-connect-vm1.desktop"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_relative_data_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "x")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = desktop.put_vm("vm1", [], ())
    assert path == str(tmp_path / ".local/share/applications/spice-connect-vm1.desktop")


def test_the_handler_opens_a_uri(stage: Stage) -> None:
    stage.environment["XDG_DATA_HOME"] = str(stage.home / "data")
    stage.ssh('note("host " + sys.argv[sys.argv.index("--") + 1])\nready()\nhold()')
    stage.viewer("")
    code, out, err = stage.run("--desktop-entry")
    assert (code, err) == (0, "")
    icon, path = out.splitlines()
    validate(icon)
    assert Path(icon).read_text().endswith('"--window"\n')
    validate(path)
    assert "\nMimeType=x-scheme-handler/spice-connect;\n" in Path(path).read_text()
    argv = ["gio", "launch", path, "spice-connect://lab/vm1"]
    subprocess.run(argv, check=True, env=stage.environment, timeout=10)
    assert stage.noted("host") == "lab"
    eventually(lambda: not stage.left_behind())


def test_an_icon_keeps_its_options(stage: Stage) -> None:
    stage.environment["XDG_DATA_HOME"] = str(stage.home / "data")
    options = ["--host", "anne@kvm", "--run-dir", "/run/x", "--full-screen", "--wait"]
    code, out, _ = stage.run("--desktop-entry", *options, "vm1", "--", "--zoom=150")
    assert code == 0
    validate(out.strip())
    kept = '"--host=anne@kvm" "--run-dir=/run/x" "--wait" "--full-screen" "vm1" "--" "--zoom=150"\n'
    assert Path(out.strip()).read_text().endswith(kept)
    assert not stage.notes.exists()


@pytest.mark.parametrize(
    "args", [["--json"], ["--no-viewer", "vm1"], ["--host", "kvm"], ["--full-screen"], ["a/b"]]
)
def test_options_that_are_not_for_icons_are_refused(stage: Stage, args: list[str]) -> None:
    stage.environment["XDG_DATA_HOME"] = str(stage.home / "data")
    assert stage.run("--desktop-entry", *args)[:2] == (64, "")
    assert not (stage.home / "data").exists()
