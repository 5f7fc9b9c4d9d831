"""A reload reads only what is new, and comes to what reading everything comes to."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml

from spicetunnel.policy import models, yamlsource
from spicetunnel.policy.chunks import cut, proven
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import MapReader
from tests.unit.policy.reloading import Files, check_reloads, outcome, parsed

A, B, C, D = (
    f"  {name}:\n    socket: /{name}\n    allow:\n      - user: {name}{name}\n".encode()
    for name in "abcd"
)
HEAD, TAIL = b"timezone: UTC\nvms:\n", b"people:\n  staff: [user: eve]\n"
GOOD = HEAD + A + B + C + D
NEW_A, NEW_B, NEW_D = (vm.replace(b"user: ", b"user: x") for vm in (A, B, D))
CRLF = GOOD.replace(b"\n", b"\r\n")
X = B.replace(b"b", b"x")
STAFF = B.replace(b"user: bb", b"people: staff")


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the parser is given to read."""
    given: list[bytes] = []
    real = yamlsource.read

    def read(data: bytes, file: str) -> object:
        given.append(data)
        return real(data, file)

    monkeypatch.setattr(yamlsource, "read", read)
    return given


@pytest.fixture
def reader(texts: list[bytes]) -> MapReader:
    """Has read GOOD."""
    made = MapReader()
    parsed(made, (GOOD,))
    texts.clear()
    return made


QUICK = {
    "nothing": (GOOD, HEAD + A),
    "one VM": (HEAD + A + NEW_B + C + D, HEAD + A + NEW_B),
    "the first VM": (HEAD + NEW_A + B + C + D, HEAD + NEW_A),
    "the last VM": (HEAD + A + B + C + NEW_D, HEAD + A + NEW_D),
    "a new VM": (HEAD + A + X + B + C, HEAD + A + X),
    "a VM less": (HEAD + A + C + D, HEAD + A),
    "another order": (HEAD + D + B + A + C, HEAD + D),
    "a line above": (b"# new\n" + GOOD, b"# new\n" + HEAD + A),
    "a line between": (HEAD + A + B + b"\n  # new\n" + C + D, HEAD + A + B + b"\n  # new\n"),
    "a comment at the margin": (HEAD + A + B + b"# new\n" + C, HEAD + A + B + b"# new\n"),
    "the head": (GOOD.replace(b"vms:", b"vms:  # all"), HEAD.replace(b":\n", b":  # all\n") + A),
    "people used": (HEAD + A + STAFF + C + TAIL, HEAD + A + STAFF + TAIL),
    "a tail": (GOOD + TAIL, HEAD + A + TAIL),
    "everything": (HEAD + NEW_A + NEW_B, HEAD + NEW_A + NEW_B),
    "no last line end": (GOOD[:-1], HEAD + A + D[:-1]),
    "all CRLF": (CRLF, CRLF),
    "one CRLF": (HEAD + A + B.replace(b"\n", b"\r\n") + C, HEAD + A + B.replace(b"\n", b"\r\n")),
}


@pytest.mark.parametrize(("text", "read"), QUICK.values(), ids=QUICK)
def test_only_what_is_new_is_read(
    reader: MapReader, texts: list[bytes], text: bytes, read: bytes
) -> None:
    got = outcome(reader, (text,))
    assert texts == [read]
    assert got == outcome(MapReader(), (text,))


def test_what_was_read_quickly_is_known_too(reader: MapReader, texts: list[bytes]) -> None:
    parsed(reader, (HEAD + A + NEW_B + C,))
    parsed(reader, (HEAD + A + C + NEW_B,))
    assert texts[1:] == [HEAD + A]


def test_only_the_last_good_map_is_remembered(reader: MapReader, texts: list[bytes]) -> None:
    parsed(reader, (HEAD + A + C,))
    parsed(reader, (HEAD + A + B + C,))
    assert texts[1:] == [HEAD + A + B]
    assert reader._main
    assert list(reader._main.chunks) == [A, B, C]


def test_a_bad_map_is_read_as_a_whole_and_forgotten(reader: MapReader, texts: list[bytes]) -> None:
    wrong = C.replace(b"/c", b"c")
    with pytest.raises(MapError, match="must be an absolute path"):
        parsed(reader, (HEAD + A + B + wrong,))
    assert texts == [HEAD + A + wrong, HEAD + A + B + wrong]
    texts.clear()
    parsed(reader, (GOOD,))
    assert texts == [HEAD + A]


def test_a_bad_map_moves_no_place() -> None:
    reader = MapReader()
    vm = parsed(reader, (GOOD,)).vms["b"]
    with pytest.raises(MapError):
        parsed(reader, (b"# one more\n" + GOOD + A,))
    assert vm.allow[0].source == "0.yaml:10"
    parsed(reader, (b"# one more\n" + GOOD,))
    assert vm.allow[0].source == "0.yaml:11"


def vms(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in ("vms:", *lines)).encode()


QUOTE = vms(
    "  a: {socket: /a}", "  b:", "    socket: /b", '    title: "x', "  c:", "    socket: /c"
)
TRAPS: dict[str, tuple[bytes, bytes]] = {
    "what quotes held is now a VM": (
        QUOTE + b'    title: y"\n  d: {socket: /d}\n',
        vms("  a: {socket: /a}", "  c:", "    socket: /c", '    title: y"', "  d: {socket: /d}"),
    ),
    "a VM is now in quotes": (
        vms("  a: {socket: /a}", "  c:", "    socket: /c", '    title: y"', "  d: {socket: /d}"),
        QUOTE + b'    title: y"\n  d: {socket: /d}\n',
    ),
    "a known VM is now in quotes that end in a new one": (
        vms("  a: {socket: /a}", "  c: {socket: /c}", "  d: {socket: /d}"),
        vms("  a: {socket: /a}", "  b: {socket: /b, title: 'x", "  c: {socket: /c}", "  e: y'}"),
    ),
    "quotes that go to the margin": (
        vms("  a: {socket: /a}", '  b: {socket: /b, title: "x', 'y"}'),
        vms("  a: {socket: /a}", '  b: {socket: /b, title: "x', '  c: {socket: /c, title: y"}'),
    ),
    "quotes that end in the tail": (
        vms("  a: {socket: /a}", "  b: {socket: /b}", "people: {p: [user: x]}"),
        vms("  a: {socket: /a, title: 'x", "  b: {socket: /b}", "people: y'}"),
    ),
    "quotes around the key of the VMs": (
        vms("  a: {socket: /a}", "  b: {socket: /b}"),
        b"vms: {z: {socket: /z, title: '\n" + vms("  a: {socket: /a}", "  b: {socket: /b}", "'}}"),
    ),
    "braces over several lines": (
        vms("  a: {socket: /a}", "  b: {", "    socket: /b", "  }", "  c: {socket: /c}"),
        vms("  a: {socket: /a}", "  b: {", "  c: {socket: /c}", "  socket: /b", "  }"),
    ),
    "braces that go to the margin": (
        vms("  a: {socket: /a}", "  b: {", "socket: /b", "}"),
        vms("  a: {socket: /a}", "  b: {", "  c: {socket: /c}", "socket: /b", "}"),
    ),
    "braces around all": (
        vms("  a: {socket: /a}", "  b: {socket: /b}"),
        b"{people: {},\n" + vms("  a: {socket: /a}", "  b: {socket: /b}") + b"}\n",
    ),
    "braces around the VMs": (
        vms("  a: {socket: /a}", "  b: {socket: /b}"),
        vms("  {", "  a: {socket: /a}", "  b: {socket: /b}", "  }"),
    ),
    "a folded title": (
        vms("  a: {socket: /a}", "  b:", "    socket: /b", "    title: >-", "      x", "", "  # y"),
        vms("  b:", "    socket: /b", "    title: >-", "      x", "", "  # y", "  a: {socket: /a}"),
    ),
    "a folded title gains what stands below": (
        vms("  a: {socket: /a}", "  b:", "    socket: /b", "    title: >-", "      x", "  # y"),
        vms("  a: {socket: /a}", "  b:", "    socket: /b", "    title: >-", "      x", "      # y"),
    ),
    "a title of two lines": (
        vms("  a: {socket: /a}", "  b:", "    socket: /b", "    title: x", "      c:y"),
        vms("  a: {socket: /a}", "  b:", "    socket: /b", "    title: x", "  c: {socket: /c}"),
    ),
    "a literal with lines kept": (
        vms("  a: {socket: /a}", "  b: {socket: /b}"),
        vms("  a: {socket: /a}", "  c:", "    socket: /c", "    title: |+", "      x", "  b: {}"),
    ),
    "comments that look like VMs": (
        vms("  # x:", "  a: {socket: /a}", "  # b: {socket: /b}", "# c:", "  d: {socket: /d}"),
        vms("  a: {socket: /a} # b:", "# c:", "  #d:", "  d: {socket: /d}", "# people: x"),
    ),
    "a comment becomes a VM": (
        vms("  a: {socket: /a}", "  # b: {socket: /b}", "  c: {socket: /c}"),
        vms("  a: {socket: /a}", "  b: {socket: /b}", "  c: {socket: /c}"),
    ),
    "document marks": (
        b"---\n" + GOOD + b"...\n",
        b"%YAML 1.1\n---\n" + HEAD + B + A + b"...\n",
    ),
    "a document's end between VMs": (GOOD, HEAD + A + B + b"...\n" + C),
    "a second document": (GOOD, GOOD + b"---\n" + GOOD),
    "a directive between VMs": (GOOD, HEAD + A + b"%YAML 1.1\n" + B),
    "a mark inside of quotes": (GOOD, HEAD + A + b"  x: {socket: '/x\n--- '}\n" + B),
    "a BOM": (GOOD, b"\xef\xbb\xbf" + HEAD + B + A),
    "a BOM before the VMs' key": (vms("  a: {socket: /a}"), b"\xef\xbb\xbf" + vms("  a: {}")),
    "a BOM between VMs": (GOOD, HEAD + A + b"\xef\xbb\xbf" + B),
    "a lone CR": (GOOD, HEAD + A + B.replace(b"bb", b"b\rb") + C),
    "a tab before a key": (GOOD, HEAD + A + b"\t" + B + C),
    "a tab behind a key": (GOOD, HEAD + A + B.replace(b"b:", b"b:\t") + C),
    "a line of a tab": (GOOD, HEAD + A + b"\t\n" + B + C),
    "bytes that are no text": (GOOD, HEAD + A + b"  # \xff\n" + B),
    "VMs twice": (GOOD, GOOD + b"vms:\n" + A),
    "VMs twice, first in braces": (GOOD, b"vms: {}\n" + GOOD),
    "a VM twice": (GOOD, GOOD + B),
    "another VM of that name": (GOOD, GOOD + NEW_B),
    "a name twice, known and new": (GOOD, HEAD + A + C + B.replace(b"/b", b"/x") + B),
    "an anchor and its alias": (GOOD, HEAD + A + b"  x: &x {socket: /x}\n" + B + b"  y: *x\n"),
    "an alias of nothing": (GOOD, HEAD + A + B + b"  y: *x\n" + C),
    "an anchor of the VMs": (GOOD, HEAD.replace(b"vms:", b"vms: &v") + A + B),
    "a merge": (GOOD, HEAD + A + B + b"  <<: {c: {socket: /c}}\n" + D),
    "an explicit key": (GOOD, HEAD + A + B + b"  ? x\n  : {socket: /x}\n" + C),
    "an explicit key of the VMs": (GOOD, b"? vms\n:\n" + A + B),
    "quoted names": (vms('  "a": {socket: /a}', "  b: {socket: /b}"), vms("  b: {socket: /b}")),
    "a name in quotes twice": (GOOD, HEAD + A + B + b'  "c": {socket: /x}\n' + C),
    "a list": (GOOD, HEAD + A + B + b"  - c\n" + D),
    "a deeper VM": (GOOD, HEAD + A + b" " + B.replace(b"\n", b"\n ") + C),
    "a less deep VM": (GOOD, HEAD + A + b" b: {socket: /b}\n" + C),
    "another depth": (GOOD, HEAD + b"".join(b" " + line for line in (A + B).splitlines(True))),
    "a VM as text": (GOOD, HEAD + A + B + b"  c: text\n" + D),
    "no VM": (GOOD, HEAD),
    "an empty map": (GOOD, b""),
    "a long name": (GOOD, HEAD + A + B + b"  " + b"x" * 65 + b": {socket: /x}\n" + C),
    "a socket twice": (GOOD, HEAD + A + B + C + D.replace(b"/d", b"/b")),
    "people unknown": (GOOD + TAIL, HEAD + A + B.replace(b"user: bb", b"people: stuff") + C + TAIL),
    "people gone": (HEAD + A + STAFF + C + TAIL, HEAD + A + STAFF + C),
    "a tail that is wrong": (GOOD, GOOD + b"peoples: {}\n"),
    "a head that is wrong": (GOOD, GOOD.replace(b"UTC", b"Mars")),
}


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def _loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlsource, "_Loader", getattr(yaml, request.param))


@pytest.mark.usefixtures("_loader")
@pytest.mark.parametrize(("first", "second"), TRAPS.values(), ids=TRAPS)
def test_no_text_makes_a_reload_come_to_something_else(first: bytes, second: bytes) -> None:
    assert not isinstance(outcome(MapReader(), (first,)), list), "the first is good"
    check_reloads((first,), (second,), (first,), (b"# down\n" + first,), (second,))


def test_what_only_looks_like_a_block_is_not_proven() -> None:
    """No key of a map takes such a text now; one that does must not open a way."""
    text = b"{text: '\nvms:\n# ', vms: {\n  a: {socket: /a},\n  b: {socket: /b}}}\n"
    document = yamlsource.read(text, "vms.yaml")
    assert document.problems == []
    parts = cut(text)
    assert parts
    assert len(parts.chunks) == 2
    assert not proven(parts, document.root[0])


MAIN, LAB = GOOD + TAIL, b"vms:\n  lab: {socket: /lab, allow: [people: staff]}\n"
PARTS: dict[str, Files] = {
    "the same": (MAIN, LAB),
    "the main file changed": (HEAD + B + A + TAIL, LAB),
    "people gone from the main file": (GOOD, LAB),
    "the part changed": (MAIN, LAB.replace(b"/lab", b"/new")),
    "a part is gone": (MAIN,),
    "a part is new": (MAIN, LAB, b"vms: {x: {socket: /x}}\n"),
    "a VM moved to the part": (HEAD + A + C + TAIL, LAB + B),
    "a line above the part": (MAIN, b"# down\n" + LAB + X),
    "a VM in both": (MAIN, LAB + B),
    "people in both": (MAIN, LAB + TAIL),
    "people in both whom nobody uses": (MAIN, b"vms:\n" + X + TAIL),
    "a socket in both": (MAIN, LAB.replace(b"/lab", b"/b")),
    "a key of the main file": (MAIN, LAB + b"timezone: UTC\n"),
    "the files change places": (LAB + TAIL, GOOD.replace(b"timezone: UTC\n", b"")),
}


@pytest.mark.parametrize("files", PARTS.values(), ids=PARTS)
def test_with_parts(files: Files) -> None:
    lab = LAB + X
    check_reloads((MAIN, LAB), files, (b"\n" + MAIN, lab), files, (MAIN, b"\n" + lab), files)


def test_a_part_that_is_the_same_is_not_read(reader: MapReader, texts: list[bytes]) -> None:
    flow = b"vms: {lab: {socket: /lab}}"
    parsed(reader, (GOOD, flow))
    texts.clear()
    parsed(reader, (HEAD + A + C, flow))
    assert texts == [HEAD + A]


def test_the_reader_of_another_map_knows_nothing_of_this_one(tmp_path: Path) -> None:
    reader = MapReader()
    for name in ("x", "y"):
        path = tmp_path / name
        path.write_bytes(GOOD)
        assert reader.load(path).vms["b"].allow[0].source == f"{path}:10"


def test_the_server_s_zone_is_looked_up_for_each_map(monkeypatch: pytest.MonkeyPatch) -> None:
    zones = iter(["Asia/Kathmandu", "Europe/Berlin"])
    monkeypatch.setattr(models, "local_zone", lambda: ZoneInfo(next(zones)))
    reader = MapReader()
    for zone in ("Asia/Kathmandu", "Europe/Berlin"):
        vm_map = parsed(reader, (b"vms:\n" + A + B,))
        assert str(vm_map.zone_of(vm_map.vms["b"])) == zone
