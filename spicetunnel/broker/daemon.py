"""spicetunneld: the broker's command, and its main loop."""

import argparse
import asyncio
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from spicetunnel import __version__
from spicetunnel.broker.assembly import Broker, Options
from spicetunnel.broker.audit import REPEAT_SPAN, Audit
from spicetunnel.broker.console import Console
from spicetunnel.broker.listener import Listener
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.people import ADMIN_GROUP, AWAY
from spicetunnel.broker.review import Review
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import CONTROL_SOCKET, RELAY_DIR, RUN_DIR, TUNNEL_SOCKET
from spicetunnel.common.systemd import inherited, notify_ready
from spicetunnel.policy.temporary import STATE_DIR
from spicetunnel.policy.vmmap import MapError

MAP_POLL = 0.25  # seconds between two looks at the map's file
GRACE = 60  # seconds a session may go on without a broker


def main() -> None:
    options = _parse(sys.argv[1:])
    try:
        asyncio.run(serve(options))
    except MapError as error:
        for problem in error.problems:
            _complain(str(problem), problem.hint)
        sys.exit(error.exit_code)
    except SpicetunnelError as error:
        _complain(error.reason, error.hint)
        sys.exit(error.exit_code)


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT. Live sessions go on, for the next broker.

    Raises MapError or SpicetunnelError if the broker cannot start.
    """
    _raise_descriptor_limit()
    broker = Broker(options)
    reload_asked, stop_asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_asked.set)
    audit = broker.audit
    audit.write("start", version=__version__, run_dir=str(options.run_dir), boot=_boot())
    broker.directory.give(inherited(os.environ))
    await broker.handover.adopt()
    jobs = [
        *_listeners(broker),
        asyncio.ensure_future(_follow_map(broker.maps, broker.review, reload_asked)),
        asyncio.ensure_future(_follow_console(broker.console, broker.review)),
        asyncio.ensure_future(broker.granting.expire()),
        asyncio.ensure_future(_tell_repeated(audit)),
        asyncio.ensure_future(stop_asked.wait()),
    ]
    notify_ready(os.environ)
    # None of these jobs should end by itself. If one does, stop, to be started anew.
    done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    audit.write("stop", sessions=len(list(broker.seats)))
    for job in done:
        job.result()


def _listeners(broker: Broker) -> list[asyncio.Future[Any]]:
    control = broker.directory.listen(CONTROL_SOCKET, socket.SOCK_SEQPACKET)
    tunnel = broker.directory.listen(TUNNEL_SOCKET, socket.SOCK_STREAM)
    doors = ((control, broker.control.door), (tunnel, broker.tunnel.door))
    shared = broker.people.is_shared
    return [
        asyncio.ensure_future(Listener(sock, door, shared, broker.audit).run())
        for sock, door in doors
    ]


async def _follow_map(maps: MapStore, review: Review, asked: asyncio.Event) -> None:
    while True:
        try:
            async with asyncio.timeout(MAP_POLL):
                await asked.wait()
        except TimeoutError:
            if not await maps.changed():
                continue
        asked.clear()
        if await maps.reload():
            await review.all()


async def _tell_repeated(audit: Audit) -> None:
    while True:
        await asyncio.sleep(REPEAT_SPAN)
        audit.tell_repeated()


async def _follow_console(console: Console, review: Review) -> None:
    async for _uids in console.follow():
        await review.all()


def _raise_descriptor_limit() -> None:
    """A channel holds one descriptor, a session three; the soft limit only serves select(2)."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="spicetunneld", description="The broker of spicetunnel: decides by the VM map."
    )
    parser.add_argument(
        "--map", type=Path, default=Path("/etc/spicetunnel/vms.yaml"), help="default: %(default)s"
    )
    parser.add_argument("--run-dir", type=Path, default=Path(RUN_DIR), help="default: %(default)s")
    parser.add_argument(
        "--relay-dir",
        type=Path,
        default=Path(RELAY_DIR),
        metavar="DIR",
        help="where spicetunnel-relay listens; default: %(default)s",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path(STATE_DIR),
        metavar="DIR",
        help="where temporary grants are kept; default: %(default)s",
    )
    parser.add_argument(
        "--grace",
        type=int,
        default=GRACE,
        metavar="SECONDS",
        help="how long a session may go on without a broker; default: %(default)s",
    )
    parser.add_argument(
        "--accounts-away",
        type=int,
        default=AWAY,
        metavar="SECONDS",
        help="how long a session goes on if its person cannot be looked up; default: %(default)s",
    )
    parser.add_argument(
        "--admin-group",
        default=ADMIN_GROUP,
        metavar="GROUP",
        help="who, besides root, may see and end all sessions; default: %(default)s",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parsed = parser.parse_args(arguments)
    return Options(**{name: getattr(parsed, name) for name in Options._fields})


def _boot() -> str:
    """The id of this boot of the host. `spicetunnel log` uses it: no session outlives a boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _complain(reason: str, hint: str) -> None:
    print(f"spicetunneld: {reason}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
