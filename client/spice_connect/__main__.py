"""Where spice-connect begins."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until cli has its own way: a Ctrl-C while all else is imported shows no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    from spice_connect import cli  # noqa: PLC0415 - takes the most of the start

    cli.main()


if __name__ == "__main__":
    main()
