"""The YAML reader: text stays text, every node has a position, no input does harm."""

import gc
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spicetunnel.policy import yamlsource
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import parse_map
from tests.unit.policy.saying import problems_of, said_of

BOMB = b"a: &a [x, x]\n" + b"".join(
    b"%c: &%c [*%c, *%c]\n" % (name, name, name - 1, name - 1) for name in b"bcdefghijklmno"
)
PIECES = ["vms:", " ", "\n", "  ", "- ", "x: ", "{", "}", "[", "]", ",", "'", '"', "&a ", "*a"]
PIECES += ["!t ", "? ", ": ", "<<: ", "---\n", "...\n", "%YAML 1.1\n", "#", "|\n", ">\n", "\\", "é"]
PIECES += ["when: Mon 08:00-12:00\n", "from: ", "except: ", "timezone: ", "people: ", "uid: ", "~"]
PIECES += ["vm1:\n", "socket: /run/vm1.sock\n", "allow:\n", "- user: ann\n", "\t", "\r\n", "\ufeff"]


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers. The second is used if PyYAML was built without libyaml."""
    monkeypatch.setattr(yamlsource, "_Loader", getattr(yaml, request.param))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "vms.yaml:1:1: the map is empty"),
        (b"vms: {}\n# M\xfcller\n", "vms.yaml:2:4: this is not UTF-8 text"),
        (b"\xef\xbb\xbfvms: {}\n\xff", "vms.yaml:2:1: this is not UTF-8 text"),
        ("vms: {}\n".encode("utf-16"), "vms.yaml:1:1: this is not UTF-8 text"),
        (b"vms: {}\n# a\a\0", "vms.yaml:2:4: the invisible character U+0007 is not allowed"),
        (b"vms: {}\n# \x7f", "vms.yaml:2:3: the invisible character U+007F is not allowed"),
        (b"vms: {}\r\n# \x7f", "vms.yaml:2:3: the invisible character U+007F is not allowed"),
        (b"vms: {}\r# x\n", "vms.yaml:1:8: the invisible character U+000D is not allowed"),
        (b"# \xc2\x9b31m", "vms.yaml:1:3: the invisible character U+009B is not allowed"),
        (b"# \xc2\x85x", "vms.yaml:1:3: the invisible character U+0085 is not allowed"),
        ("# \u202etxt".encode(), "vms.yaml:1:3: the invisible character U+202E is not allowed"),
        ("# \u2028x".encode(), "vms.yaml:1:3: the invisible character U+2028 is not allowed"),
        ("vms: {}\n\ufeff".encode(), "vms.yaml:2:1: the invisible character U+FEFF is not allowed"),
    ],
)
def test_invalid_text_is_refused(data: bytes, said: str) -> None:
    assert said_of(data)[0] == said


def test_each_line_with_an_invisible_character_is_named() -> None:
    assert [problem.line for problem in problems_of(b"vms: {}\n# \a\a\n\n# \0\n")] == [2, 4]


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfvms: {}\n", b"vms: {}\r\n", b"vms: {} # \t\xc3\xa9"]
)
def test_marks_that_editors_leave_are_accepted(data: bytes) -> None:
    assert parse_map(data, "vms.yaml").vms == {}


@pytest.mark.usefixtures("loader")
def test_every_scalar_stays_the_text_that_was_written() -> None:
    words = ["no", "on", "null", "~", "17:00", "0o17", "0x1F", "1e3", "1_000", "2024-01-01", ".inf"]
    data = f"plain: [{', '.join(words)}]\nquoted: ['no', \"17:00\", '']\n"
    document = yamlsource.read(data.encode(), "vms.yaml")
    assert document.problems == []
    assert document.root[0] == {"plain": words, "quoted": ["no", "17:00", ""]}


@pytest.mark.usefixtures("loader")
def test_every_node_has_its_position() -> None:
    document = yamlsource.read(b"# comment\na: 1\nb:\n  - x\n  - \xc3\xa9: [y]\n", "vms.yaml")
    assert document.locate(()) == ((2, 1), (2, 1))
    assert document.locate(("a",)) == ((2, 1), (2, 4))
    assert document.locate(("b",)) == ((3, 1), (4, 3))
    assert document.locate(("b", 0)) == ((4, 5), (4, 5))
    assert document.locate(("b", 1, "é")) == ((5, 5), (5, 8))
    assert document.locate(("b", 1, "é", 0)) == ((5, 9), (5, 9))


def test_missing_node_has_the_position_of_its_parent() -> None:
    document = yamlsource.read(b"a:\n  b: 1\n", "vms.yaml")
    assert document.locate(("a", "c")) == document.locate(("a",))
    assert document.locate(("a", "b", "c")) == document.locate(("a", "b"))


def test_reading_a_map_leaves_no_garbage_cycles() -> None:
    """The collector is paused while a map is read, so a large map in a cycle would stay long."""
    gc.collect()
    gc.disable()
    try:
        parse_map(b"vms: {vm1: {socket: /a, allow: [{user: ann}]}}\n", "vms.yaml")
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.usefixtures("loader")
def test_each_alias_of_an_alias_bomb_is_refused() -> None:
    messages = [problem.message for problem in problems_of(BOMB)]
    assert messages.count("the alias '*a' is not allowed") == 2
    assert messages.count("the anchor '&a' is not allowed") == 1
    assert sum("alias" in message for message in messages) == 2 * 14


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("opening", [b"[", b"{a: ", b"- ", b"? ", b"[{a: ", b"&a [", b"!t ["])
def test_deep_nesting_is_refused_quickly(opening: bytes) -> None:
    started = time.monotonic()
    messages = [problem.message for problem in problems_of(opening * 100_000)]
    assert messages.count("nested deeper than 16 levels") == 1
    assert len(messages) <= 18
    assert time.monotonic() - started < 2


def test_large_map_with_many_mistakes_is_not_read_for_minutes() -> None:
    """The broker reads it too; each mistake means another reading."""
    vm = b"  vm%d: {socket: /run/vm%d.sock}\n"
    good = b"".join(vm % (number, number) for number in range(60_000))
    data = b"vms:\n" + good + b"".join(b"  bad%d: x: y\n" % number for number in range(20))
    started = time.process_time()
    assert 1 <= len(problems_of(data)) <= 20
    assert time.process_time() - started < 5


@pytest.mark.usefixtures("loader")
def test_nesting_of_16_levels_is_read() -> None:
    document = yamlsource.read(b"[" * 16 + b"]" * 16, "vms.yaml")
    assert document.problems == []


def check_refusal(data: bytes) -> None:
    """These bytes are a map, or a MapError whose problems all have a position in the file."""
    try:
        parse_map(data, "vms.yaml")
    except MapError as error:
        lines = data.count(b"\n") + 1
        for problem in error.problems:
            assert 1 <= problem.line <= lines, problem
            assert 1 <= problem.column <= len(data) + 1, problem
            assert problem.message.isprintable()
            assert problem.hint.isprintable()


@pytest.mark.usefixtures("loader")
class TestFuzz:
    """Any bytes: no other exception than MapError."""

    @given(st.binary(max_size=200))
    @example(b'vms: "\\ud800"')
    @example(b'vms: {vm1: {socket: "\\ud800", title: "\\ud800"}}')
    @example(b'vms: "\\U00110000"')
    @example(b"%YAML 99999999999999999999.1\n---\na")
    @example(b"%TAG ! x\n--- !a!b c")
    @example(b"vms: {? : x, ? [a] : y, *a : z, vm1: *a}")
    @settings(deadline=None)
    def test_bytes(self, data: bytes) -> None:
        check_refusal(data)

    @given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join))
    @example("- |\n\U00018d09vms:")
    @settings(deadline=None, max_examples=300)
    def test_text_of_yaml_pieces(self, text: str) -> None:
        check_refusal(text.encode("utf-8", "surrogatepass"))

    @given(st.integers(0, 200), st.integers(0, 10), st.binary(max_size=3))
    @settings(deadline=None, max_examples=300)
    def test_a_good_map_with_a_piece_replaced(self, at: int, length: int, piece: bytes) -> None:
        good = b"vms:\n  vm1:\n    title: Windows\n    socket: /run/vm1.sock\n    allow:\n"
        good += b"      - {user: ann, take-over: true}\n      - group: staff\n"
        check_refusal(good[:at] + piece + good[at + length :])
