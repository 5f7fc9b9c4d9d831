"""The gate's own options: where the run directory may come from."""

import pytest

from spicetunnel.common.errors import UsageError
from spicetunnel.gate.__main__ import run_dir_from


@pytest.mark.parametrize(
    ("arguments", "run_dir"),
    [
        ([], "/run/spicetunnel"),
        (["--run-dir", "/run/st"], "/run/st"),
        (["-c", "exec /usr/bin/spicetunnel-gate"], "/run/spicetunnel"),
        (["-c", "exec /usr/bin/spicetunnel-gate --run-dir /run/st"], "/run/st"),
    ],
)
def test_started_by_sshd(arguments: list[str], run_dir: str) -> None:
    assert run_dir_from(arguments) == run_dir


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "id"],
        ["-c", "open vm1"],
        ["-c"],
        ["-c", "exec /usr/bin/spicetunnel-gate", "x"],
        ["-c", "exec /usr/bin/spicetunnel-gate; id"],
        ["-c", "exec /usr/bin/spicetunnel-gate\n"],
        ["-c", "exec /bin/sh -c id"],
        ["-l"],
        ["-i"],
        ["--run-dir", "relative"],
        ["--run-dir", "/run/st", "vm1"],
        ["--run-dir /run/st", "--run-dir /x"],
    ],
)
def test_login_shell_is_no_shell(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        run_dir_from(arguments)
