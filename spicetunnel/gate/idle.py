"""A session's gate while there is nothing to say: the smallest process that Python can be.

A session lasts for hours, and its gate waits. So it runs this file in its own place (execve(2): the
broker knows the same process), which imports nothing of the product until there is something to do.
That is 2 MB less a session: `script/bench product`.

    python3 -I -S .../spicetunnel/gate/idle.py BROKER SESSION GRACE [the gate's own arguments]

BROKER is the descriptor of the connection to the broker. SESSION and GRACE are the Session's.
"""

import select
import sys

STDOUT = 1  # without buffers of its own, sys.stdout would be loaded for its number alone


def main() -> None:
    broker, session, grace = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    del sys.argv[1:4]
    poller = select.poll()
    poller.register(STDOUT, 0)  # as in Session.run: an error says that the client left
    poller.register(broker, select.POLLIN)
    if STDOUT in {fd for fd, _ in poller.poll()}:
        return
    sys.path.append(__file__.rsplit("/", 3)[0])
    try:
        from spicetunnel.gate.__main__ import wake  # noqa: PLC0415
    except ImportError:
        print("spicetunnel: the server's gate was removed or replaced", file=sys.stderr)
        print("hint: connect again", file=sys.stderr)
        sys.exit(70)  # EX_SOFTWARE
    wake(broker, session, grace)


if __name__ == "__main__":
    main()
