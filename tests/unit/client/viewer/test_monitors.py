import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_connect.errors import UsageError
from spice_connect.tunnel import localend
from spice_connect.viewer.command import ViewerCommand, config_home, parse_monitors, settings

from tests.unit.client.fakes import Stage


@pytest.mark.parametrize(("text", "numbers"), [("2", (2,)), ("2,1", (2, 1)), (" 1, 3 ", (1, 3))])
def test_monitors_are_numbers_in_the_order_of_the_displays(
    text: str, numbers: tuple[int, ...]
) -> None:
    assert parse_monitors(text) == numbers


@pytest.mark.parametrize("text", ["", "0", "-1", "a", "1,", "1;2", "17", "٢", "1" * 5000])
def test_invalid_monitors_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a list of monitors"):
        parse_monitors(text)


def test_a_monitor_shows_one_display() -> None:
    with pytest.raises(UsageError, match="one monitor for two displays"):
        parse_monitors("1,2,1")


def test_the_user_s_settings_are_kept_except_their_mappings() -> None:
    theirs = "[virt-viewer]\nask-quit=false\n[1234]\nmonitor-mapping=1:1\nshare=x\n"
    assert settings(theirs, (2, 1)) == (
        "[virt-viewer]\nask-quit=false\n[1234]\nshare=x\n[fallback]\nmonitor-mapping=1:2;2:1\n"
    )


@given(st.text())
def test_any_settings_file(theirs: str) -> None:
    assert settings(theirs, (3,)).endswith("[fallback]\nmonitor-mapping=1:3\n")


def test_the_directory_has_links_to_the_user_s_except_for_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, private = tmp_path / "theirs", tmp_path / "private"
    for directory in (theirs / "gtk-3.0", theirs / "virt-viewer", private):
        directory.mkdir(parents=True)
    (theirs / "virt-viewer/settings").write_text("[virt-viewer]\nask-quit=false\n")
    (theirs / "gtk-3.0/settings.ini").write_text("dark\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(theirs))
    path = Path(config_home(str(private), (2,)))
    assert (path / "gtk-3.0/settings.ini").read_text() == "dark\n"
    assert "ask-quit=false" in (path / "virt-viewer/settings").read_text()
    assert config_home(str(private), (2,)) == str(path)  # for the viewer after a restart
    localend.remove_directory(str(private))
    assert (theirs / "gtk-3.0/settings.ini").read_text() == "dark\n"
    assert (theirs / "virt-viewer/settings").read_text() == "[virt-viewer]\nask-quit=false\n"


def test_without_any_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "missing"))
    assert os.listdir(config_home(str(tmp_path), (1,))) == ["virt-viewer"]


@pytest.mark.parametrize(
    "command", [("spicy", "{socket}"), ("my-viewer",), ("virt-viewer", "{title}")]
)
def test_monitors_are_refused_for_other_viewers(command: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--monitors is for remote-viewer"):
        ViewerCommand(command).on_monitors((1,))


def test_only_the_viewer_gets_that_directory(stage: Stage) -> None:
    viewer = stage.home / "remote-viewer"
    stage.script(
        "remote-viewer",
        'note("config " + os.environ["XDG_CONFIG_HOME"])\n'
        'note("file " + open(sys.argv[-1]).read().replace(chr(10), " "))\n',
    )
    stage.configure(viewer=f'["{viewer}"]')
    stage.environment["DISPLAY"] = ":77"  # a fake viewer opens none
    code, _, err = stage.run("--monitors", "2,1", "vm1")
    assert (code, err) == (0, "")
    assert stage.noted("config").startswith(f"{stage.runtime}/spice-")
    assert "fullscreen=1" in stage.noted("file")
