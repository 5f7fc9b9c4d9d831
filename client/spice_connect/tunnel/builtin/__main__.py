"""One connection, from the command line to the exit status."""

import asyncio
import signal
import sys

from spice_connect.tunnel.builtin.dialog import Dialog
from spice_connect.tunnel.builtin.log import Log, SshError
from spice_connect.tunnel.builtin.reach import Reach
from spice_connect.tunnel.builtin.tunnel import hold
from spice_connect.tunnel.builtin.words import Wanted, parse

#: As of ssh(1): what failed is ours, and not the command's.
FAILED = 255


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ended as ssh is, without a traceback
    try:
        wanted = parse(sys.argv[1:])
    except SshError as error:
        sys.exit(f"ssh: {error}")  # to stderr, where the person sees it: there is no log yet
    log = Log(wanted.log, marks=wanted.marks, verbosity=wanted.verbosity)
    try:
        status = asyncio.run(_run(wanted, log))
    except SshError as error:
        log.say(str(error))
        status = FAILED
    sys.exit(status)


async def _run(wanted: Wanted, log: Log) -> int:
    connection = await Reach(wanted, Dialog(log, batch=wanted.batch)).connect(wanted.place)
    log.mark(f"Authenticated to {wanted.place.host}")
    status = await hold(connection, wanted, log)
    if status is None:
        raise SshError(f"Connection to {wanted.place.host} closed by remote host.")
    return status


if __name__ == "__main__":
    main()
