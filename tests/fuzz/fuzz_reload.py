"""Whatever is edited in a map: a quick reload comes to what reading everything comes to."""

import sys

import atheris

with atheris.instrument_imports(include=["spicetunnel"]):
    from tests.unit.policy.editing import edited, written
    from tests.unit.policy.reloading import check_reloads


def one_input(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)

    def pick(below: int) -> int:
        return int(provider.ConsumeIntInRange(0, below - 1))

    first = written(pick)
    once = edited(first, pick)
    states = [first, once, edited(first, pick), edited(once, pick), first]
    check_reloads(*((state.encode(),) for state in states))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
