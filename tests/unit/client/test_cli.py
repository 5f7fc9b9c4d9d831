import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.client.fakes import READY, SOURCE, Stage


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--nope"], "no such option"),
        (["a", "b"], "unexpected extra argument"),
        (["--host"], "requires an argument"),
        (["-oProxyCommand=x"], "no such option"),
        (["--", "-oProxyCommand=x"], '"-oProxyCommand=x" is not a VM\'s name'),
        (["../vm1"], '"../vm1" is not a VM\'s name'),
        (["a\x1b[31m"], '"a?[31m" is not a VM\'s name'),
        (["--host", "-oProxyCommand=x", "vm1"], '"-oProxyCommand=x" is not a host'),
        (["--host=-oProxyCommand=x"], '"-oProxyCommand=x" is not a host'),
        (["--host", "", "vm1"], '"" is not a host'),
        (["--run-dir", "x:y", "vm1"], '"x:y" is not a run directory'),
        (["--json", "vm1"], "--json is for the list"),
        (["-q", "-v", "vm1"], "--quiet and --verbose are opposites"),
        (["--take-over"], "need a VM"),
        (["--no-viewer"], "need a VM"),
        (["--wait"], "need a VM"),
        (["--no-reconnect"], "need a VM"),
        (["--full-screen"], "need a VM"),
        (["--no-viewer", "--full-screen", "vm1"], "no viewer for these options"),
        (["--no-viewer", "vm1", "--", "-z"], "no viewer for these options"),
        (["--", "vm1", "-z"], "unexpected extra argument"),
    ],
)
def test_a_usage_error_is_64_with_a_hint_and_starts_nothing(
    stage: Stage, args: list[str], words: str
) -> None:
    code, out, err = stage.run(*args)
    assert (code, out) == (64, "")
    assert words in err
    first, second = err.splitlines()
    assert first.startswith("spice-connect: ")
    assert not first.endswith(".")
    assert second.startswith("hint: ")
    assert not stage.notes.exists()


def test_a_hostile_host_in_the_environment_is_refused(stage: Stage) -> None:
    stage.environment["SPICE_CONNECT_HOST"] = "-oProxyCommand=x"
    assert stage.run("vm1")[0] == 64
    assert not stage.notes.exists()


def test_where_the_host_comes_from(stage: Stage) -> None:
    """--host, then the environment, then the configuration."""
    stage.ssh('note("host " + sys.argv[sys.argv.index("--") + 1])\nsay("vms", vms=[])\n')
    stage.run()
    assert stage.noted("host") == "kvm"
    stage.environment["SPICE_CONNECT_HOST"] = "lab"
    stage.run()
    assert stage.noted("host") == "lab"
    stage.run("--host", "anne@third")
    assert stage.noted("host") == "anne@third"


def test_the_host_of_a_vm_overrides_the_default_host_but_not_the_command_line(stage: Stage) -> None:
    stage.ssh('note("host " + sys.argv[sys.argv.index("--") + 1])\n' + READY)
    stage.viewer("")
    stage.configure(hosts='{"lab-*" = "lab"}')
    for vm, host in ("lab-1", "lab"), ("vm1", "kvm"):
        stage.run(vm)
        assert stage.noted("host") == host
    stage.environment["SPICE_CONNECT_HOST"] = "env"
    stage.run("lab-1")
    assert stage.noted("host") == "env"


def test_without_a_host_the_hint_says_where_to_set_one(stage: Stage) -> None:
    (stage.home / "config/spice-connect/config.toml").unlink()
    code, _, err = stage.run("vm1", "--run-dir", str(stage.home))  # a KVM host would need none
    assert code == 64
    assert err.splitlines()[0] == "spice-connect: no host to connect to"
    assert f'host = "HOST" in {stage.home}/config/spice-connect/config.toml' in err


def test_a_wrong_configuration_is_78(stage: Stage) -> None:
    stage.configure(hots='"kvm"')
    code, _, err = stage.run("vm1")
    assert code == 78
    assert 'unknown key "hots"' in err
    assert not stage.notes.exists()


def test_a_missing_ssh_or_viewer_is_reported(stage: Stage) -> None:
    stage.configure(viewer='["nonexistent"]')
    code, _, err = stage.run("vm1")
    assert (code, "nonexistent is not installed\nhint: install it" in err) == (69, True)
    assert not stage.notes.exists()  # before any password prompt
    stage.configure(ssh='["/nonexistent"]')
    code, _, err = stage.run("vm1")
    assert (code, err.splitlines()[0]) == (
        69,
        "spice-connect: cannot start /nonexistent: No such file or directory",
    )


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_names_options_and_exit_codes(stage: Stage, option: str) -> None:
    code, out, err = stage.run(option)
    assert (code, err) == (0, "")
    for word in (
        "--host",
        "--take-over",
        "--no-viewer",
        "--wait",
        "--no-reconnect",
        "77   not permitted",
    ):
        assert word in out


def test_the_version_comes_from_the_installed_distribution(stage: Stage) -> None:
    code, out, _ = stage.run("--version")
    assert code == 0
    assert out.startswith("spice-connect ")


def test_it_works_with_closed_standard_streams(stage: Stage) -> None:
    """The janitor's socket must not get number 0."""
    stage.ssh('note("stderr " + os.readlink("/proc/self/fd/2"))\nsay("vms", vms=[])\n')
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "spice_connect"],
        env=stage.environment,
        timeout=10,
        check=False,
    )
    assert done.returncode == 0
    assert stage.noted("stderr").startswith("pipe:")


def imports(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_client_imports_nothing_of_the_server() -> None:
    for file in SOURCE.rglob("*.py"):
        assert not [name for name in imports(file) if name.split(".")[0] == "spicetunnel"], file


LATE = (
    *("rich", "asyncio", "prompt_toolkit", "spice_connect.vms", "spice_connect.ui.firstrun"),
    *("spice_connect.ui.completion", "spice_connect.ui.desktop"),
)


def test_slow_modules_are_not_imported_at_the_start(stage: Stage) -> None:
    code = f"import spice_connect.cli, sys; print([m for m in {LATE} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=stage.environment, capture_output=True, check=True
    )
    assert done.stdout == b"[]\n"


def test_a_fault_of_this_machine_names_the_place(stage: Stage) -> None:
    """Not "[Errno 20] Not a directory"."""
    (stage.home / "file").touch()
    stage.environment["XDG_DATA_HOME"] = f"{stage.home}/file/x"
    code, out, err = stage.run("--desktop-entry", "vm1")
    assert (code, out) == (os.EX_OSERR, "")
    told, hint = err.splitlines()
    assert told == f"spice-connect: cannot use {stage.home}/file/x: not a directory"
    assert hint.startswith("hint: ")


def test_a_full_runtime_directory(stage: Stage) -> None:
    """With a fake: /dev/full in the place of the connection file."""
    patch = (
        "import os; real = os.open\n"
        "def full(path, *more, **keys):\n"
        "    path = '/dev/full' if str(path).endswith('.vv') else path\n"
        "    return real(path, *((os.O_WRONLY,) if path == '/dev/full' else more), **keys)\n"
        "os.open = full\n"
    )
    code, _, err = stage.run("vm1", patch=patch)
    assert code == os.EX_OSERR
    told, hint = err.splitlines()
    assert told.startswith(f"spice-connect: cannot use {stage.runtime}/spice-")
    assert told.endswith("/session.vv: no space left on device")
    assert hint.startswith("hint: make room there")


@pytest.mark.parametrize("umask", [0o777, 0o700, 0o377])
def test_a_umask_that_closes_our_own_files_to_us(stage: Stage, umask: int) -> None:
    stage.viewer("")
    before = os.umask(umask)
    try:
        client = stage.start("vm1")
    finally:
        os.umask(before)
    assert client.communicate(timeout=10) == ("", "")
    assert client.returncode == 0


def test_a_place_that_does_not_take_our_directory_is_named(stage: Stage) -> None:
    patch = (
        "from spice_connect.tunnel import localend\n"
        "def full(*_): raise OSError(28, 'No space left on device')\n"
        "localend.make_directory = full\n"
    )
    code, _, err = stage.run("vm1", patch=patch)
    told, hint = err.splitlines()
    assert code == 69
    assert told == (
        f"spice-connect: cannot make a directory in {stage.runtime}: no space left on device"
    )
    assert "XDG_RUNTIME_DIR" in hint
