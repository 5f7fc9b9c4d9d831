"""spicetunneld: the broker's command, and its main loop."""

import argparse
import asyncio
import resource
import signal
import socket
import sys
from pathlib import Path

from spicetunnel import __version__
from spicetunnel.broker.audit import Audit
from spicetunnel.broker.console import Console
from spicetunnel.broker.control import Control
from spicetunnel.broker.judge import Judge
from spicetunnel.broker.lifecycle import Lifecycle
from spicetunnel.broker.maps import MapStore
from spicetunnel.broker.packets import GateConnection
from spicetunnel.broker.people import People
from spicetunnel.broker.server import Listener, RunDirectory
from spicetunnel.broker.sessions import SessionTable
from spicetunnel.broker.tunnel import Tunnel
from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.protocol import CONTROL_SOCKET, RUN_DIR, TUNNEL_SOCKET
from spicetunnel.policy.vmmap import MapError

MAP_POLL = 0.25  # seconds between two looks at the map's file


def main() -> None:
    options = _parse(sys.argv[1:])
    try:
        asyncio.run(serve(options.map, options.run_dir))
    except MapError as error:
        for problem in error.problems:
            _complain(str(problem), problem.hint)
        sys.exit(error.exit_code)
    except SpicetunnelError as error:
        _complain(error.reason, error.hint)
        sys.exit(error.exit_code)


async def serve(map_path: Path, run_dir: Path) -> None:
    """Serve until SIGTERM or SIGINT. Live sessions run on without us.

    Raises MapError or SpicetunnelError where there is nothing to start with.
    """
    _raise_descriptor_limit()
    audit = Audit()
    maps, console, sessions = MapStore(map_path, audit), Console(), SessionTable()
    people, judge = People(maps), Judge(maps, console)
    lifecycle = Lifecycle(judge, people, sessions)
    control = Control(judge, people, sessions, lifecycle, audit)
    tunnel = Tunnel(sessions, audit)
    directory = RunDirectory(run_dir)

    async def serve_gate(connection: socket.socket) -> None:
        await control.serve(GateConnection(connection))

    reload_asked, stop_asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_asked.set)
    control_socket = directory.listen(CONTROL_SOCKET, socket.SOCK_SEQPACKET)
    tunnel_socket = directory.listen(TUNNEL_SOCKET, socket.SOCK_STREAM)
    jobs = [
        asyncio.ensure_future(Listener(control_socket, serve_gate, audit).run()),
        asyncio.ensure_future(Listener(tunnel_socket, tunnel.serve, audit).run()),
        asyncio.ensure_future(_follow_map(maps, lifecycle, reload_asked)),
        asyncio.ensure_future(_follow_console(console, lifecycle)),
        asyncio.ensure_future(stop_asked.wait()),
    ]
    audit.write("start", version=__version__, run_dir=str(run_dir))
    # A job that ends by itself is a fault of ours: stop, and let the next start be clean.
    done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    audit.write("stop", sessions=len(list(sessions)))
    for job in done:
        job.result()


async def _follow_map(maps: MapStore, lifecycle: Lifecycle, asked: asyncio.Event) -> None:
    while True:
        try:
            async with asyncio.timeout(MAP_POLL):
                await asked.wait()
        except TimeoutError:
            if not await maps.changed():
                continue
        asked.clear()
        if await maps.reload():
            await lifecycle.review_all()


async def _follow_console(console: Console, lifecycle: Lifecycle) -> None:
    async for _uids in console.follow():
        await lifecycle.review_all()


def _raise_descriptor_limit() -> None:
    """A channel holds one descriptor, a session two; the soft limit only serves select(2)."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spicetunneld", description="The broker of spicetunnel: decides by the VM map."
    )
    parser.add_argument(
        "--map", type=Path, default=Path("/etc/spicetunnel/vms.yaml"), help="default: %(default)s"
    )
    parser.add_argument("--run-dir", type=Path, default=Path(RUN_DIR), help="default: %(default)s")
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(arguments)


def _complain(reason: str, hint: str) -> None:
    print(f"spicetunneld: {reason}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
