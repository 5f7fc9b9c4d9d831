"""Fixtures and rules for all tests. The stage is imported only by tests that use it, so that
tests/unit needs neither root nor anything installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage.broker import Broker
    from tests.stage.people import Person
    from tests.stage.screen import Screen
    from tests.stage.sshd import Sshd
    from tests.stage.stage import Stage
    from tests.stage.vm import Vm

TESTS = Path(__file__).parent
#: The folders whose tests run on the stage.
REAL = {"refusals", "stage_selftest", "system"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real: needs root and real programs; see tests/stage")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in REAL:
            item.add_marker("real")


def _skipped_in_ci(config: pytest.Config) -> bool:
    """CI installs all that a test needs, so a skipped test there is a failure."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return bool(os.environ.get("CI")) and bool(reporter and reporter.stats.get("skipped"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped_in_ci(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if _skipped_in_ci(config):
        terminalreporter.write_line("a test was skipped, which CI does not allow", red=True)


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    if os.geteuid() != 0:
        pytest.skip("needs root: run script/test")
    from tests.stage.stage import Stage

    with Stage() as stage:
        yield stage


@pytest.fixture
def alice(stage: Stage) -> Person:
    """May use vm1 and vm3; vm3 is off."""
    return stage.person("alice")


@pytest.fixture
def bob(stage: Stage) -> Person:
    """May use vm2."""
    return stage.person("bob")


@pytest.fixture
def carol(stage: Stage) -> Person:
    """May use vm1 and vm2, and take vm1 over."""
    return stage.person("carol")


@pytest.fixture
def mallory(stage: Stage) -> Person:
    """May log in, and use no VM."""
    return stage.person("mallory")


@pytest.fixture
def vm1(stage: Stage) -> Vm:
    return stage.vm("vm1")


@pytest.fixture
def vm2(stage: Stage) -> Vm:
    return stage.vm("vm2")


@pytest.fixture
def sshd(stage: Stage) -> Sshd:
    return stage.sshd


@pytest.fixture
def screen(stage: Stage) -> Screen:
    return stage.screen


@pytest.fixture(params=["ssh", "built-in"])
def transport(stage: Stage, request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs the test twice: spice-connect uses OpenSSH's ssh, then its built-in one."""
    stage.transport = request.param
    yield
    stage.transport = "ssh"


@pytest.fixture
def broker(stage: Stage) -> Iterator[Broker]:
    """Broker and relay, running with the usual map before and after the test."""
    if not stage.relay.alive():
        stage.relay.start()
    if not stage.broker.alive():
        stage.broker.restart()
    yield stage.broker
    if stage.broker.alive():
        stage.set_map()
