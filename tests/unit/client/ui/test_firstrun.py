import os
import pty
import stat
import subprocess
from pathlib import Path

import pytest
from spice_connect import config
from spice_connect.ui import firstrun

from tests.unit.client.fakes import Stage, command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep/er/config.toml"


@pytest.mark.parametrize("host", ["kvm", "anne@kvm", "AD\\anne@büro", "😀"])
def test_a_saved_host_is_read_again(file: Path, host: str) -> None:
    firstrun.keep_host(host, str(file))
    assert config.load(str(file)).host == host
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


OTHERS = '# mine\nviewer = ["spicy"]\n[hosts]\nvm1 = "lab"'


def test_the_rest_of_the_file_stays(file: Path) -> None:
    file.parent.mkdir(parents=True)
    real = file.with_name("real")
    real.write_text(OTHERS)
    real.chmod(0o640)
    file.symlink_to(real)
    firstrun.keep_host("kvm", str(file))
    assert file.is_symlink()
    assert real.read_text() == f'host = "kvm"\n{OTHERS}'
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_failed_write_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    file.parent.mkdir(parents=True)
    file.write_text(OTHERS)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        firstrun.keep_host("kvm", str(file))
    assert file.read_text() == OTHERS
    assert list(file.parent.iterdir()) == [file]


ANSWERS = 'say("vms", vms=[])\n'


def typed(stage: Stage, text: str, ssh: str = ANSWERS) -> tuple[int, str]:
    """The exit code and the terminal after this input; no host is configured.

    With a run directory of its own: this machine may be a KVM host, which needs no host.
    """
    settings = stage.home / "config/spice-connect/config.toml"
    run_dir = f'run-dir = "{stage.home}"\n'
    settings.write_text(settings.read_text().replace('host = "kvm"\n', run_dir))
    stage.ssh('note("host " + sys.argv[sys.argv.index("--") + 1])\n' + ssh)
    leader, follower = pty.openpty()
    client = subprocess.Popen(
        command(), env=stage.environment, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    os.write(leader, text.encode())
    shown = b""
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:  # EIO: the client has ended
        pass
    os.close(leader)
    return client.wait(10), shown.decode()


@pytest.mark.parametrize(("answer", "kept"), [("", "lab"), ("y", "lab"), ("n", ""), ("x", "")])
def test_the_host_is_asked_for_once(stage: Stage, answer: str, kept: str) -> None:
    code, shown = typed(stage, f" lab \n{answer}\n")
    file = stage.home / "config/spice-connect/config.toml"
    assert code == 0
    assert "host: " in shown
    assert "keep it in ~/config/spice-connect/config.toml? [Y/n] " in shown
    assert stage.noted("host") == "lab"
    loaded = config.load(str(file))
    assert loaded.host == kept
    assert loaded.ssh == (f"{stage.home}/ssh",)


@pytest.mark.parametrize(
    ("text", "words"),
    [("-oProxyCommand=x\n", "is not a host"), ("\n", "no host to"), ("\x04", "no host to")],
)
def test_an_empty_or_hostile_host_is_refused(stage: Stage, text: str, words: str) -> None:
    code, shown = typed(stage, text)
    assert (code, words in shown) == (64, True)
    assert not stage.notes.exists()


@pytest.mark.parametrize(
    ("ssh", "kept"),
    [
        (
            'log("ssh: Could not resolve hostname lab: unknown")\nsys.exit(255)',
            "",
        ),
        ("sys.exit(127)", ""),
        (ANSWERS, "lab"),
    ],
)
def test_a_host_is_kept_only_if_a_spicetunnel_answered(stage: Stage, ssh: str, kept: str) -> None:
    """A mistyped one would be asked each time from then on."""
    typed(stage, "lab\ny\n", ssh)
    assert config.load(str(stage.home / "config/spice-connect/config.toml")).host == kept
