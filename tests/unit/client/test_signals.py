import signal
import subprocess
import sys

from tests.unit.client.fakes import SOURCE

PROGRAM = """
import os, signal
from spice_connect import errors, signals
signals.install()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except errors.Interrupted as first:
    for further in signals.ENDING:
        os.kill(os.getpid(), further)
    print(first.exit_code)
"""

STARTING = """
import os, signal
from spice_connect import __main__
os.kill(os.getpid(), signal.SIGINT)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        # A test runner in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_an_early_ctrl_c_shows_no_traceback() -> None:
    done = run(STARTING)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_only_the_first_signal_counts() -> None:
    done = run(PROGRAM)
    assert (done.returncode, done.stdout, done.stderr) == (0, "143\n", "")
