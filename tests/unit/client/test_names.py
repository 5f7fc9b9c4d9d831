import pytest
from spice_connect.errors import UsageError
from spice_connect.names import check_host, check_run_dir, check_vm, split_port


@pytest.mark.parametrize("name", ["vm1", "A", "0", "lab-win_2.test", "x" * 64])
def test_valid_vm_names(name: str) -> None:
    assert check_vm(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-v", "--json", ".", "../x", "a/b", "a b", "a\n", "vm1\n", "a;b", "$(x)", "é", "x" * 65],
)
def test_invalid_vm_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_vm(name)


@pytest.mark.parametrize(
    "host",
    ["kvm", "anne@kvm", "kvm.example.org", "10.0.0.1", "fe80::1%eth0", "lab/kvm", "büro",
     "DOM\\anne@kvm", "anne@corp.example@kvm", "ssh://anne@kvm:2222", "_x", "anne@kvm:2222",
     "[::1]:22"],
)  # fmt: skip
def test_hosts_that_ssh_accepts_are_valid(host: str) -> None:
    assert check_host(host) == host


@pytest.mark.parametrize(
    "host",
    ["-oProxyCommand=touch /tmp/x", "-oProxyCommand=x", "-F/tmp/x", "--", "", "@kvm", "anne@",
     "anne@-oProxyCommand=x", "-x@kvm", "a b", "a\tb", "kvm\n", "\nk", "a\x00", "a\x1bc", "a\x9bc",
     "$(x)", "`x`", "a;b", "a|b", "a&b", "a'b", 'a"b', "a\\b", "{a,b}", "anne\\@kvm", "a$b@kvm"],
)  # fmt: skip
def test_a_host_can_be_neither_an_option_nor_shell_syntax(host: str) -> None:
    with pytest.raises(UsageError):
        check_host(host)


@pytest.mark.parametrize("path", ["/run/spicetunnel", "/tmp/a+b/c_d-1.2", "/" + "x" * 93])
def test_valid_run_directories(path: str) -> None:
    assert check_run_dir(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "run", "./run", "/a b", "/a:b", "/a%h", "/${HOME}", "/a\\b", "/a\n", "/é", "/" + "x" * 95],
)
def test_a_run_directory_that_ssh_would_expand_is_refused(path: str) -> None:
    """Ssh splits a forwarding at `:` and expands `%` and `${}`."""
    with pytest.raises(UsageError):
        check_run_dir(path)


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("kvm:2222", ("kvm", "2222")),
        ("AD\\anne@kvm:2222", ("AD\\anne@kvm", "2222")),
        ("anne@[2001:db8::1]:2222", ("anne@2001:db8::1", "2222")),
        ("fe80::1", ("fe80::1", "")),
        ("ssh://kvm:2222", ("ssh://kvm:2222", "")),
        ("kvm", ("kvm", "")),
        ("local:", ("local:", "")),
    ],
)
def test_a_host_may_have_a_port(host: str, parts: tuple[str, str]) -> None:
    assert split_port(check_host(host)) == parts


@pytest.mark.parametrize("host", ["kvm:0", "kvm:65536", "kvm:022", "kvm:99999999"])
def test_a_port_that_none_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="is not a port"):
        check_host(host)
