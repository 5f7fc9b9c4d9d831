"""Any bytes as a map: they load, or are refused with a place. Never another exception."""

import sys

import atheris

with atheris.instrument_imports(include=["spicetunnel"]):
    from spicetunnel.policy.vmmap import MapError, parse_map


def one_input(data: bytes) -> None:
    try:
        parse_map(data, "vms.yaml")
    except MapError as error:
        for problem in error.problems:
            assert str(problem).isprintable(), problem
            assert problem.hint.isprintable(), problem
            assert problem.line <= data.count(b"\n") + data.count(b"\r") + 1000, problem


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
