"""The command line of the viewer. The real viewer is in tests/system/test_viewer.py."""

import json

import pytest
from spice_connect.errors import ConfigError, UsageError
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.viewer.command import ViewerCommand

from tests.unit.client.fakes import Stage

NOTE_FILE = 'note("file " + json.dumps(open(sys.argv[-1]).read()))'
NOTE_ARGV = 'note("argv " + json.dumps(sys.argv[1:]))'


@pytest.mark.parametrize(
    ("template", "argv"),
    [
        (("v", "-x"), ["v", "-x", "--zoom=9", "/d/f"]),
        (("v", "{file}", "-x"), ["v", "/d/f", "-x", "--zoom=9"]),
        (
            ("spicy", "--uri=spice+unix://{socket}"),
            ["spicy", "--uri=spice+unix:///d/s", "--zoom=9"],
        ),
        (("v", "{title}: {socket}"), ["v", "{file} $(x): /d/s", "--zoom=9"]),
        (("v", "{nothing}"), ["v", "{nothing}", "--zoom=9", "/d/f"]),
    ],
)
def test_placeholders_are_replaced(template: tuple[str, ...], argv: list[str]) -> None:
    """The server wrote the title, so placeholders in it are not replaced."""
    command = ViewerCommand(template, ("--zoom=9",))
    assert command.argv(file="/d/f", local_end=LocalEnd("/d/s"), title="{file} $(x)") == argv


def test_the_port_placeholder() -> None:
    command = ViewerCommand(("v", "spice://127.0.0.1:{port}")).by_port(port=True)
    assert command.argv(file="f", local_end=LocalEnd(port=5900), title="T") == [
        "v",
        "spice://127.0.0.1:5900",
    ]


@pytest.mark.parametrize(("place", "port"), [("{socket}", True), ("{port}", False)])
def test_a_placeholder_without_a_value_is_refused(place: str, port: bool) -> None:
    with pytest.raises(ConfigError, match=f"there is no {place}"):
        ViewerCommand(("v", place)).by_port(port=port)


def test_a_title_is_never_an_option() -> None:
    command = ViewerCommand(("v", "{title}"))
    assert command.argv(file="f", local_end=LocalEnd("s"), title="--debug (vm1)") == [
        "v",
        "debug (vm1)",
    ]


def test_full_screen_is_refused_for_a_viewer_without_connection_file() -> None:
    with pytest.raises(UsageError, match="not for spicy"):
        ViewerCommand(("spicy", "{socket}")).in_full_screen()
    assert ViewerCommand(("v", "{socket}", "{file}")).in_full_screen().keys == {"fullscreen": "1"}


def test_full_screen_and_hot_keys_are_in_the_connection_file(stage: Stage) -> None:
    stage.configure(**{"hot-keys": '{toggle-fullscreen = "shift+f11"}'})
    stage.viewer(NOTE_FILE)
    assert stage.run("--full-screen", "vm1") == (0, "", "")
    file = json.loads(stage.noted("file"))
    assert file.startswith("[virt-viewer]\ntoggle-fullscreen=shift+f11\nfullscreen=1\ntype=spice\n")
    stage.run("vm1")
    assert "\nfullscreen" not in json.loads(stage.noted("file"))


@pytest.mark.parametrize("mark", [["vm1", "--"], ["vm1", "--host", "kvm", "--"]])
def test_words_after_the_mark_go_to_the_viewer(stage: Stage, mark: list[str]) -> None:
    stage.viewer(NOTE_ARGV)
    assert stage.run(*mark, "--zoom=150", "--", "--host") == (0, "", "")
    assert json.loads(stage.noted("argv"))[:-1] == ["--zoom=150", "--", "--host"]


def test_a_mark_before_the_vm_ends_the_options(stage: Stage) -> None:
    stage.viewer(NOTE_ARGV)
    assert stage.run("--", "vm1") == (0, "", "")
    assert len(json.loads(stage.noted("argv"))) == 1


def test_a_viewer_may_get_the_socket(stage: Stage) -> None:
    stage.configure(viewer=f'["{stage.home}/viewer", "--uri=spice+unix://{{socket}}"]')
    stage.viewer(NOTE_ARGV)
    assert stage.run("vm1") == (0, "", "")
    (uri,) = json.loads(stage.noted("argv"))
    assert uri.startswith(f"--uri=spice+unix://{stage.runtime}/spice-")
