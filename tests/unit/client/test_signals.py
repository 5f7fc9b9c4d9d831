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


def test_the_first_signal_counts_and_no_other_disturbs_the_clean_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("143\n", "")
