"""Which viewer is started, with what; that the real one obeys is in tests/system/test_viewer.py."""

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
def test_the_places_of_a_command(template: tuple[str, ...], argv: list[str]) -> None:
    """A title that looks like a place is none: the server wrote it."""
    command = ViewerCommand(template, ("--zoom=9",))
    assert command.argv(file="/d/f", local_end=LocalEnd("/d/s"), title="{file} $(x)") == argv


def test_a_port_in_the_place_of_a_socket() -> None:
    command = ViewerCommand(("v", "spice://127.0.0.1:{port}")).by_port(port=True)
    assert command.argv(file="f", local_end=LocalEnd(port=5900), title="T") == [
        "v",
        "spice://127.0.0.1:5900",
    ]


@pytest.mark.parametrize(("place", "port"), [("{socket}", True), ("{port}", False)])
def test_a_viewer_that_wants_what_is_not_there_is_told(place: str, port: bool) -> None:
    with pytest.raises(ConfigError, match=f"there is no {place}"):
        ViewerCommand(("v", place)).by_port(port=port)


def test_a_title_is_never_an_option() -> None:
    command = ViewerCommand(("v", "{title}"))
    assert command.argv(file="f", local_end=LocalEnd("s"), title="--debug (vm1)") == [
        "v",
        "debug (vm1)",
    ]


def test_full_screen_is_refused_where_nobody_would_hear_of_it() -> None:
    with pytest.raises(UsageError, match="not for spicy"):
        ViewerCommand(("spicy", "{socket}")).in_full_screen()
    assert ViewerCommand(("v", "{socket}", "{file}")).in_full_screen().keys == {"fullscreen": "1"}


def test_full_screen_and_hot_keys_stand_in_the_file(stage: Stage) -> None:
    stage.configure(**{"hot-keys": '{toggle-fullscreen = "shift+f11"}'})
    stage.viewer(NOTE_FILE)
    assert stage.run("--full-screen", "vm1") == (0, "", "")
    file = json.loads(stage.noted("file"))
    assert file.startswith("[virt-viewer]\ntoggle-fullscreen=shift+f11\nfullscreen=1\ntype=spice\n")
    stage.run("vm1")
    assert "\nfullscreen" not in json.loads(stage.noted("file"))


@pytest.mark.parametrize("mark", [["vm1", "--"], ["vm1", "--host", "kvm", "--"]])
def test_what_stands_behind_the_mark_goes_to_the_viewer(stage: Stage, mark: list[str]) -> None:
    stage.viewer(NOTE_ARGV)
    assert stage.run(*mark, "--zoom=150", "--", "--host") == (0, "", "")
    assert json.loads(stage.noted("argv"))[:-1] == ["--zoom=150", "--", "--host"]


def test_a_mark_before_the_vm_only_ends_the_options(stage: Stage) -> None:
    stage.viewer(NOTE_ARGV)
    assert stage.run("--", "vm1") == (0, "", "")
    assert len(json.loads(stage.noted("argv"))) == 1


def test_a_viewer_may_be_told_the_socket(stage: Stage) -> None:
    stage.configure(viewer=f'["{stage.home}/viewer", "--uri=spice+unix://{{socket}}"]')
    stage.viewer(NOTE_ARGV)
    assert stage.run("vm1") == (0, "", "")
    (uri,) = json.loads(stage.noted("argv"))
    assert uri.startswith(f"--uri=spice+unix://{stage.runtime}/spice-")
