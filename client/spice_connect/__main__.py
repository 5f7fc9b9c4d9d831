"""The start of spice-connect."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # A Ctrl-C during the imports shows no traceback. signals.install() replaces this later.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    from spice_connect import cli  # noqa: PLC0415 - most of the start-up time

    cli.main()


if __name__ == "__main__":
    main()
