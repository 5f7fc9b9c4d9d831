import os
import socket
from pathlib import Path

import pytest
from spice_connect.errors import UnavailableError
from spice_connect.tunnel.localend import LocalEnd
from spice_connect.ui.terminal import Terminal

from tests.unit.client.fakes import Stage


def test_a_missing_socket(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="did not open"):
        LocalEnd(str(tmp_path / "spice")).require()


def test_a_file_is_not_a_socket(tmp_path: Path) -> None:
    (tmp_path / "spice").touch()
    with pytest.raises(UnavailableError, match="did not open"):
        LocalEnd(str(tmp_path / "spice")).require()


def test_a_port_is_warned_about_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    near = LocalEnd.open_port(Terminal(quiet=True))
    said = capsys.readouterr().err
    assert f"everybody on this machine can reach this VM at 127.0.0.1:{near.port}" in said
    assert "hint: " in said


def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as trial:
        near = LocalEnd(port=trial.getsockname()[1])
        assert near.require() == near
    with pytest.raises(UnavailableError, match="did not open"):
        near.require()


def test_a_port_that_another_user_has_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They could show us a false VM."""
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        with pytest.raises(UnavailableError, match="did not open"):
            LocalEnd(port=theirs.getsockname()[1]).require()


def test_without_the_kernel_s_table_a_port_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spice_connect.tunnel.localend.TCP_TABLE", "/nowhere")
    assert LocalEnd(port=1).require().port == 1


def test_ssh_and_viewer_get_the_port(stage: Stage) -> None:
    stage.ssh(
        'note("forward " + sys.argv[sys.argv.index("-L") + 1])\n'
        "port = int(local_port())\n"
        'listener = socket.create_server(("127.0.0.1", port))\n'
        'say("ready", session="00000001", vm="vm1", title="T")\nhold()\n'
    )
    stage.viewer('note("file " + open(sys.argv[-1]).read().replace(chr(10), " "))\n')
    stage.configure(**{"viewer-port": "true"})
    code, _, err = stage.run("vm1")
    assert (code, err.count("everybody on this machine")) == (0, 1)
    host, port, far = stage.noted("forward").split(":")
    assert (host, far) == ("127.0.0.1", "/run/spicetunnel/tunnel.sock")
    assert f"host=127.0.0.1 port={port}" in stage.noted("file")
    assert "unix-path" not in stage.noted("file")
