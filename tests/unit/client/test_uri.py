import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_connect import names
from spice_connect.errors import UsageError
from spice_connect.names import check_host, check_vm

from tests.unit.client.fakes import Stage


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("spice-connect://kvm/vm1", "kvm"),
        ("spice-connect://kvm.example.org/vm1", "kvm.example.org"),
        ("spice-connect://anne@kvm/vm1", "anne@kvm"),
        ("spice-connect://anne@ad.example@kvm/vm1", "anne@ad.example@kvm"),
        ("spice-connect://anne@ad.example@kvm:22/vm1", "ssh://anne%40ad.example@kvm:22"),
        ("spice-connect://kvm:2222/vm1", "ssh://kvm:2222"),
        ("spice-connect://anne@kvm:65535/vm1", "ssh://anne@kvm:65535"),
        ("spice-connect://[::1]/vm1", "::1"),
        ("spice-connect://anne@[2001:DB8::1]/vm1", "anne@2001:DB8::1"),
        ("spice-connect://[2001:db8::1]:2222/vm1", "ssh://[2001:db8::1]:2222"),
        ("spice-connect://anne@[::ffff:192.0.2.1]:22/vm1", "ssh://anne@[::ffff:192.0.2.1]:22"),
    ],
)
def test_a_uri_names_a_host_and_a_vm(uri: str, host: str) -> None:
    assert names.parse_uri(uri) == (host, "vm1")
    assert check_host(host) == host


def refused(uri: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        names.parse_uri(uri)
    assert caught.value.reason.startswith(f'"{uri}" is not a valid URI: ')
    assert reason in caught.value.reason
    assert caught.value.hint == "spice-connect://[USER@]HOST[:PORT]/VM"


@pytest.mark.parametrize(
    "uri",
    [
        "spice-connect://-oProxyCommand=x/vm1",
        "spice-connect://-oProxyCommand/vm1",
        "spice-connect://anne@-oProxyCommand/vm1",
        "spice-connect://-p:22/vm1",
    ],
)
def test_a_host_that_is_an_option(uri: str) -> None:
    refused(uri, "is not a host")


@pytest.mark.parametrize("user", ["-oProxyCommand=x", "-oProxyCommand", "-l"])
def test_a_user_that_is_an_option(user: str) -> None:
    refused(f"spice-connect://{user}@kvm/vm1", "is not a user's name")


@pytest.mark.parametrize("host", ["", "a b", "a;b", "$(x)", "a,b", "a\nb", "ü", "..", "a" * 254])
def test_an_invalid_host(host: str) -> None:
    refused(f"spice-connect://{host}/vm1", "is not a")


@pytest.mark.parametrize(
    "host",
    [
        *("::1", "[::1", "::1]", "[[::1]]", "[]", "[:]", "[kvm]", "[192.0.2.1]", "[-1::]"),
        *("[::1]x", "x[::1]", "[::1][::2]", "[::1]:22]", "[1:2:3:4:5:6:7:8:9]", "[::1::2]"),
        *("[::1 ]", "[ ::1]", "[::1\n]", "[::\u0661]", "[::g]", "[::12345]", "[v1.x]", "[::1]]"),
        "[::1,-oProxyCommand=x]",
    ],
)
def test_an_invalid_ipv6_address(host: str) -> None:
    refused(f"spice-connect://{host}/vm1", "is not a host")
    refused(f"spice-connect://anne@{host}:22/vm1", "is not a")


@pytest.mark.parametrize("zone", ["%eth0", "%25eth0", "%$(x)", "%"])
def test_an_ipv6_address_with_a_zone(zone: str) -> None:
    refused(f"spice-connect://[fe80::1{zone}]/vm1", "a percent-encoding is not allowed")


@pytest.mark.parametrize("user", ["anne:secret", "anne:", ":", ":@anne"])
def test_a_password(user: str) -> None:
    refused(f"spice-connect://{user}@kvm/vm1", "a password is not allowed")


def test_an_empty_user() -> None:
    refused("spice-connect://@kvm/vm1", "is not a user's name")


@pytest.mark.parametrize(
    "port", ["", "0", "022", "65536", "99999", "-1", "+22", " 22", "22 ", "x", "²", "22:22"]
)
def test_an_invalid_port(port: str) -> None:
    refused(f"spice-connect://kvm:{port}/vm1", f'"{port}" is not a port')


@pytest.mark.parametrize("code", ["%2f", "%2F", "%2e%2e", "%00", "%0a", "%20", "%"])
@pytest.mark.parametrize("uri", ["spice-connect://kvm/vm1{}", "spice-connect://kvm{}x/vm1"])
def test_an_encoded_slash_dot_or_nul(uri: str, code: str) -> None:
    refused(uri.format(code), "a percent-encoding is not allowed")


@pytest.mark.parametrize(
    "vm", ["", "-v", "--verbose", ".", "..", "a b", "a\0", "a\n", "a" * 65, "a:b"]
)
def test_a_vm_that_is_an_option_or_not_a_name(vm: str) -> None:
    refused(f"spice-connect://kvm/{vm}", "is not a VM's name")


@pytest.mark.parametrize("path", ["vm1/", "vm1/x", "/vm1", "../vm1"])
def test_a_path_after_the_vm(path: str) -> None:
    refused(f"spice-connect://kvm/{path}", "the path continues")


def test_a_query() -> None:
    refused("spice-connect://kvm/vm1?run-dir=/tmp", "a query is not allowed")


def test_a_fragment() -> None:
    refused("spice-connect://kvm/vm1#x", "a fragment is not allowed")


def test_a_backslash() -> None:
    refused("spice-connect://kvm\\x/vm1", "a backslash is not allowed")


@pytest.mark.parametrize(
    "uri", ["spice-connect:kvm/vm1", "spice-connect:/kvm/vm1", "SPICE-connect://kvm/vm1"]
)
def test_another_scheme_or_start(uri: str) -> None:
    assert names.is_uri(uri)
    refused(uri, "it does not begin with spice-connect://")


@given(st.text() | st.text("aA0.-_@:/%?#\\ \n[]"))
def test_nothing_that_is_accepted_can_be_an_option(rest: str) -> None:
    try:
        host, vm = names.parse_uri(f"spice-connect://{rest}")
    except UsageError:
        return
    assert check_host(host) == host
    assert check_vm(vm) == vm
    assert not host.startswith("-")
    assert not host.rpartition("@")[2].startswith("-")


def test_a_uri_opens_its_vm_at_its_host_whatever_the_environment_says(stage: Stage) -> None:
    stage.environment["SPICE_CONNECT_HOST"] = "elsewhere"
    stage.ssh('note("argv " + " ".join(sys.argv[sys.argv.index("--") + 1 :]))\nready()\nhold()')
    stage.viewer("")
    assert stage.run("--", "spice-connect://anne@lab:22/vm2") == (0, "", "")
    assert stage.noted("argv") == "ssh://anne@lab:22 open --json --keep vm2"


def test_a_uri_with_an_ipv6_address(stage: Stage) -> None:
    stage.ssh('note("argv " + " ".join(sys.argv[-8:]))\nready()\nhold()')
    stage.viewer("")
    assert stage.run("spice-connect://anne@[::1]:22/vm2") == (0, "", "")
    assert stage.noted("argv") == "-p 22 -- anne@::1 open --json --keep vm2"


@pytest.mark.parametrize("args", [[], ["--host", "kvm"]])
def test_a_bad_uri_or_two_hosts_start_nothing(stage: Stage, args: list[str]) -> None:
    code, out, err = stage.run(*args, "spice-connect://kvm/vm1" + ("" if args else "?x"))
    assert (code, out, len(err.splitlines())) == (64, "", 2)
    assert not stage.notes.exists()
