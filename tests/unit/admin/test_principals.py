"""The lines sshd gets for a certificate: whatever is in it, each line names a person.

Certificates of ssh-keygen's, and ones that it would not make.
"""

import base64
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicetunnel.admin.cli import run
from spicetunnel.admin.keys import principals_of
from spicetunnel.common.names import is_person_name

Output = pytest.CaptureFixture[str]

ED25519 = b"ssh-ed25519-cert-v01@openssh.com"
FORCED = 'restrict,port-forwarding,command="exec /usr/bin/spicetunnel-gate --as {0}" {0}'


def packed(*strings: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(each)) + each for each in strings)


def certificate(*principals: bytes, kind: int = 1, names: bytes | None = None) -> bytes:
    head = packed(ED25519, b"nonce", b"k" * 32) + struct.pack(">QI", 7, kind) + packed(b"the id")
    tail = struct.pack(">QQ", 0, 2**64 - 1) + packed(b"", b"", b"", b"authority", b"signature")
    return head + packed(packed(*principals) if names is None else names) + tail


def certificate_text(*principals: bytes) -> str:
    return base64.b64encode(certificate(*principals)).decode()


def said(capsys: Output, text: str, code: int, *options: str) -> list[str]:
    assert run(["principals", *options, text]) == code
    shown = capsys.readouterr()
    assert bool(shown.err) is bool(code)
    assert not shown.err or shown.err.startswith("spicetunnel: this is not a user's certificate")
    return shown.out.splitlines()


def lines(capsys: Output, *principals: bytes) -> list[str]:
    return said(capsys, certificate_text(*principals), 0)


def test_each_name_in_the_certificates_order(capsys: Output) -> None:
    expected = [FORCED.format(name) for name in ("dora", "anne", "x@example.org")]
    assert lines(capsys, b"dora", b"anne", b"x@example.org") == expected


def test_another_run_directory_reaches_the_gate(capsys: Output) -> None:
    text = certificate_text(b"anne")
    (line,) = said(capsys, text, 0, "--gate", "/opt/gate", "--run-dir", "/run/st")
    assert line.endswith('command="exec /opt/gate --run-dir /run/st --as anne" anne')


HOSTILE = [
    b"",
    b"a b",
    b"a\nb",
    b"anne\n",
    b"a\rb",
    b"a\tb",
    b"a\0b",
    b"-x",
    b"--as",
    b'x" command="sh',
    b'x",command="sh" y',
    b"x' y",
    b"$(id)",
    b"`id`",
    b"a;id",
    b"a,b",
    b"a\\b",
    b"#a",
    b"*",
    b"!a",
    b"%u",
    b"../a",
    b".a",
    "ä".encode(),
    b"a\xff",
    b"a" * 65,
    b"a" * 60_000,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_principal_that_is_not_a_persons_name_is_left_out(capsys: Output, name: bytes) -> None:
    assert lines(capsys, name) == []
    assert lines(capsys, b"anne", name, b"dora") == [FORCED.format("anne"), FORCED.format("dora")]


def test_certificate_without_principals_names_nobody(capsys: Output) -> None:
    """To sshd such a certificate could mean everybody."""
    assert lines(capsys) == []


LENGTHS = [struct.pack(">I", length) for length in (1, 5, 2**31, 2**32 - 1)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"anne",
        packed(b"ssh-ed25519", b"k" * 32),  # a key is no certificate
        packed(b"ssh-ed25519-cert-v02@openssh.com") + certificate(b"anne")[len(packed(ED25519)) :],
        certificate(b"anne", kind=2),  # a host's
        certificate(b"anne", kind=0),
        certificate(*[b"anne"] * 257),  # OpenSSH takes 256
        *(certificate(names=packed(b"anne") + length) for length in LENGTHS),
        *(packed(ED25519) + length for length in LENGTHS),
        certificate(names=packed(b"anne") + b"\0\0\0"),
    ],
)
def test_bytes_that_are_not_a_users_certificate(capsys: Output, data: bytes) -> None:
    assert said(capsys, base64.b64encode(data).decode(), 65) == []


@pytest.mark.parametrize("text", ["", "AAAA!", "A", "AAA", " AAAA", "AA AA", "ä", "\udcff", "\x1b"])
def test_text_that_is_not_base64(capsys: Output, text: str) -> None:
    assert said(capsys, text, 65) == []


def test_truncated_certificate() -> None:
    whole = certificate(b"anne", b"dora")
    end = whole.index(b"dora") + len(b"dora")
    for size in range(end):
        with pytest.raises(ValueError, match="certificate"):
            principals_of(whole[:size])


@given(st.binary() | st.binary().map(lambda tail: certificate(names=tail)))
def test_any_bytes(data: bytes) -> None:
    try:
        names = principals_of(data)
    except ValueError:
        return
    assert len(names) <= 256


@given(st.lists(st.binary() | st.sampled_from([b"anne", b"dora"]), max_size=5))
def test_any_principals(names: list[bytes]) -> None:
    found = [name for name in principals_of(certificate(*names)) if is_person_name(name)]
    assert [name.encode() for name in found if name in {"anne", "dora"}] == [
        name for name in names if name in {b"anne", b"dora"}
    ]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("ssh-keygen"):
        pytest.skip("no ssh-keygen here")
    return make_key(tmp_path_factory.mktemp("authority") / "authority", "ed25519")


def make_key(file: Path, kind: str) -> Path:
    keygen("-t", kind, "-N", "", "-f", str(file))
    return file


def keygen(*arguments: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *arguments], check=True, stdin=subprocess.DEVNULL)


def security_key(file: Path, kind: bytes, *parts: bytes) -> Path:
    """A public key as a token would give it: to sign it, no token is needed."""
    text = base64.b64encode(packed(kind, *parts, b"ssh:")).decode()
    file.with_name(f"{file.name}.pub").write_text(f"{kind.decode()} {text} at a token\n")
    return file


#: A point of the curve P-256, its base point.
POINT = bytes.fromhex(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519", "sk-ed25519", "sk-ecdsa"])
def test_the_certificates_of_ssh_keygen(
    authority: Path, tmp_path: Path, capsys: Output, kind: str
) -> None:
    file = tmp_path / "key"
    if kind == "sk-ed25519":
        security_key(file, b"sk-ssh-ed25519@openssh.com", b"k" * 32)
    elif kind == "sk-ecdsa":
        security_key(file, b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", POINT)
    else:
        make_key(file, kind)
    keygen("-s", str(authority), "-I", "id", "-n", "anne,st-bob,a b", f"{file}.pub")
    text = (tmp_path / "key-cert.pub").read_text().split()[1]
    assert said(capsys, text, 0) == [FORCED.format("anne"), FORCED.format("st-bob")]


def test_no_certificate_given(capsys: Output) -> None:
    assert run(["principals"]) == 64
    assert capsys.readouterr().out == ""
