"""The SPICE password of a VM is only written to the viewer's connection file."""

import os

import pytest

from tests.unit.client.fakes import Stage, eventually

PASSWORD = "tr0ub4dor = & three"
READY = f'listener = listen()\nsay("ready", title="T", password={PASSWORD!r})\n'


def test_the_password_is_only_in_the_viewer_s_file(stage: Stage) -> None:
    stage.ssh(READY + "hold()\n")
    stage.viewer(
        'note("file " + json.dumps(open(sys.argv[1]).read()))\n'
        'note("mode %o" % (os.stat(sys.argv[1]).st_mode & 0o777))\n'
        'note("argv " + json.dumps([sys.argv, dict(os.environ)]))\n'
    )
    code, out, err = stage.run("-v", "vm1")
    assert code == 0
    assert f"password={PASSWORD}\\n" in stage.noted("file")
    assert "delete-this-file=1\\n" in stage.noted("file")
    assert stage.noted("mode") == "600"
    assert "three" not in out + err + stage.noted("argv")


def test_a_viewer_may_have_deleted_the_file(stage: Stage) -> None:
    stage.ssh(READY + "hold()\n")
    stage.viewer("os.unlink(sys.argv[1])\n")
    assert stage.run("vm1") == (0, "", "")


def test_the_next_viewer_gets_the_new_password(stage: Stage) -> None:
    stage.ssh(
        READY + stage.waits() + 'say("waiting", reason="off", hint="")\n'
        'say("ready", title="T", password="new")\nhold()\n'
    )
    stage.viewer('note("file " + json.dumps(open(sys.argv[1]).read()))\nhold()\n')
    client = stage.start("vm1")
    stage.pid("viewer")
    eventually(lambda: stage.all_noted("file"))
    stage.go()
    eventually(lambda: len(stage.all_noted("file")) == 2)
    assert "password=new\\n" in stage.noted("file")
    client.terminate()


@pytest.mark.parametrize("password", ["a\nb", "x" * 61, "\ud800", 5, None])
def test_a_malformed_password_is_refused_and_not_shown(stage: Stage, password: object) -> None:
    stage.ssh(f'listener = listen()\nsay("ready", title="T", password={password!r})\nhold()\n')
    code, out, err = stage.run("-v", "vm1")
    assert (code, out) == (os.EX_PROTOCOL, "")
    assert 'malformed: "password"' in err
    assert "xxx" not in err
