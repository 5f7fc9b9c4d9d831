from pathlib import Path

import pytest
from spice_connect import config
from spice_connect.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_any_file_the_defaults_apply(tmp_path: Path) -> None:
    assert config.load(str(tmp_path / "none")) == config.Config()


def test_every_key(file: Path) -> None:
    file.write_text(
        'host = "anne@kvm"\nrun-dir = "/run/x"\nssh = ["ssh", "-F", "a b"]\nviewer = ["spicy"]\n'
        'hot-keys = {release-cursor = "ctrl+alt+F12"}\ngate = "/opt/gate"\n'
        "viewer-port = true\n"
    )
    expected = config.Config(
        "anne@kvm",
        "/run/x",
        ("ssh", "-F", "a b"),
        ("spicy",),
        {"release-cursor": "ctrl+alt+F12"},
        gate="/opt/gate",
        viewer_port=True,
    )
    assert config.load(str(file)) == expected


def test_each_key_of_the_user_s_file_overrides_the_admin_s(tmp_path: Path) -> None:
    admin, own = tmp_path / "admin", tmp_path / "own"
    admin.write_text('host = "kvm"\nviewer = ["spicy"]\n')
    own.write_text('host = "lab"\n')
    loaded = config.load(str(admin), str(own))
    assert (loaded.host, loaded.viewer) == ("lab", ("spicy",))


HOSTS = """host = "other"
[hosts]
"lab-*" = "lab"
"lab-[0-9]" = "digit"
lab-1 = "one"
"""


@pytest.mark.parametrize(
    ("vm", "host"), [("lab-x", "lab"), ("lab-2", "lab"), ("lab-1", "one"), ("LAB-x", "other")]
)
def test_a_name_comes_before_patterns_and_the_first_pattern_counts(
    file: Path, vm: str, host: str
) -> None:
    file.write_text(HOSTS)
    assert config.load(str(file)).host_of(vm) == host


def test_the_user_s_hosts_come_before_the_admin_s(tmp_path: Path) -> None:
    admin, own = tmp_path / "admin", tmp_path / "own"
    admin.write_text('[hosts]\nvm1 = "a"\nvm2 = "anne@b"\n')
    own.write_text('host = "kvm"\n[hosts]\n"*1" = "c"\n')
    loaded = config.load(str(admin), str(own))
    assert [loaded.host_of(vm) for vm in ("vm1", "vm2", "vm3")] == ["c", "anne@b", "kvm"]
    assert loaded.every_host() == ["kvm", "c", "a", "anne@b"]
    assert loaded.at("x").host_of("vm1") == "x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts = 5", "hosts: not a table"),
        ("[hosts]\nvm1 = 5", 'hosts: "vm1": not a text'),
        ('[hosts]\nvm1 = "-oProxyCommand=x"', '"vm1": "-oProxyCommand=x" is not a host'),
        ('[hosts]\n"../x" = "kvm"', '"../x" is not a VM\'s name or a pattern'),
        ('[hosts]\n"" = "kvm"', '"" is not a VM\'s name or a pattern'),
        ('[hosts.vm1]\nx = "kvm"', '"vm1": not a text'),
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
        ('viewer-port = "yes"', "viewer-port: not true or false"),
        ('hot-keys = "shift+f11"', "hot-keys: not a table"),
        ('hot-keys = {quit = "f1"}', 'hot-keys: unknown action "quit"'),
        ('hot-keys = {zoom-in = "f1,zoom-out=f2"}', "hot-keys: zoom-in: not keys"),
        ("hot-keys = {zoom-in = 5}", "hot-keys: zoom-in: not keys"),
    ],
)
def test_a_mistake_is_reported_with_the_file_and_a_hint(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(str(file))
    assert str(file) in caught.value.reason
    assert words in caught.value.reason
    assert caught.value.hint


def test_a_file_that_is_not_text_is_reported(file: Path) -> None:
    file.write_bytes(b'host = "\xff"')
    with pytest.raises(ConfigError, match=str(file)):
        config.load(str(file))


def test_an_unreadable_file_is_reported(file: Path) -> None:
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


def test_a_byte_order_mark_is_no_mistake(file: Path) -> None:
    """Some editors write one."""
    file.write_bytes(b'\xef\xbb\xbfhost = "kvm"\n')
    assert config.load(str(file)).host == "kvm"


def test_another_encoding_is_a_clear_mistake(file: Path) -> None:
    file.write_bytes('host = "kvm"\n'.encode("utf-16"))
    with pytest.raises(ConfigError, match="utf-8"):
        config.load(str(file))
