"""The built-in ssh names in its log what failures.py explains."""

import os
from pathlib import Path

import pytest
from spice_connect.tunnel import failures
from spice_connect.tunnel.sshlog import SshLog


@pytest.mark.parametrize("cause", failures.CAUSES)
def test_each_cause_by_its_name(cause: failures.Cause) -> None:
    error = failures.explain("kvm", f"Connection refused\r\ncause: {cause.name}\r\n")
    assert error.reason == cause.reason.format(host="kvm")


def test_a_cause_that_is_none() -> None:
    error = failures.explain("kvm", "Connection refused\r\ncause: unknown\r\n")
    assert error.reason == "ssh could not reach kvm or log in there"


def test_a_cause_is_kept_and_not_shown(tmp_path: Path) -> None:
    shown = list[bytes]()
    log = SshLog(str(tmp_path), shown.append, bool)
    fd = os.open(log.path, os.O_WRONLY)
    os.write(fd, b"kvm: no\r\ncause: denied\r\n")
    os.close(fd)
    log.listen()
    assert shown == [b"kvm: no\r\n"]
    assert failures.explain("kvm", log.text()).reason == "kvm did not let you log in"
