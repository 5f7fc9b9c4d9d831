from pathlib import Path

import pytest
from spice_connect import config
from spice_connect.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_any_file_the_defaults_hold(tmp_path: Path) -> None:
    assert config.load(str(tmp_path / "none")) == config.Config()


def test_every_key(file: Path) -> None:
    file.write_text(
        'host = "anne@kvm"\nrun-dir = "/run/x"\nssh = ["ssh", "-F", "a b"]\nviewer = ["spicy"]\n'
        'gate = "/opt/gate"\n'
    )
    expected = config.Config("anne@kvm", "/run/x", ("ssh", "-F", "a b"), ("spicy",), "/opt/gate")
    assert config.load(str(file)) == expected


def test_the_person_s_file_wins_key_by_key(tmp_path: Path) -> None:
    admin, own = tmp_path / "admin", tmp_path / "own"
    admin.write_text('host = "kvm"\nviewer = ["spicy"]\n')
    own.write_text('host = "lab"\n')
    loaded = config.load(str(admin), str(own))
    assert (loaded.host, loaded.viewer) == ("lab", ("spicy",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('hots = "kvm"', 'unknown key "hots"'),
        ("host = 5", "host: not a text"),
        ('host = "-oProxyCommand=x"', 'host: "-oProxyCommand=x" is not a host'),
        ('run-dir = "x"', "run-dir: "),
        ('gate = "gate"', 'gate: "gate" is not the gate'),
        ('ssh = "ssh -v"', "ssh: not a list of arguments"),
        ("ssh = []", "ssh: not a list of arguments"),
        ('ssh = ["ssh", 5]', "ssh: not a list of arguments"),
        ('viewer = [""]', "viewer: not a list of arguments"),
        ('viewer = ["a\\u0000"]', "viewer: not a list of arguments"),
        ("host = kvm", "line 1"),
    ],
)
def test_a_mistake_is_told_with_the_file_and_a_hint(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(str(file))
    assert str(file) in caught.value.reason
    assert words in caught.value.reason
    assert caught.value.hint


def test_a_file_that_is_no_text_is_told(file: Path) -> None:
    file.write_bytes(b'host = "\xff"')
    with pytest.raises(ConfigError, match=str(file)):
        config.load(str(file))


def test_a_file_that_cannot_be_read_is_told(file: Path) -> None:
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(str(file))


@pytest.mark.parametrize(
    ("base", "expected"), [("/x", "/x/spice-connect"), ("x", "/h/.config"), ("", "/h/.config")]
)
def test_a_relative_xdg_config_home_is_ignored(
    monkeypatch: pytest.MonkeyPatch, base: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("XDG_CONFIG_HOME", base)
    assert config.user_file().startswith(expected)
