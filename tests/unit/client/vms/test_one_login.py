"""The list and the VM that is picked, over one connection. The pick itself is patched: it needs a
terminal (tests/system/test_pick.py)."""

from tests.unit.client.fakes import Stage, eventually, is_alive

#: Picks the first VM, as soon as `WHEN` is true.
PICK = """
import time
from spice_connect.ui import terminal
from spice_connect.vms import listing, row
terminal.Terminal.can_pick = lambda self: True
def pick(rows, hosts):
    while not (WHEN):
        time.sleep(0.01)
        rows = hosts.take()
    return row.Pick(rows[0], wait=True)
listing.by_menu = pick
"""
MENU = """
note("asked " + " ".join(sys.argv[sys.argv.index("--") + 2:]))
if "menu" not in sys.argv:
    ready()
    hold()
say("vms", vms=[dict(name="vm1", state="off")])
"""


def patched(when: str = "True") -> str:
    return PICK.replace("WHEN", when)


def test_the_picked_vm_is_opened_on_the_connection_of_the_list(stage: Stage) -> None:
    stage.ssh(f'{MENU}note("line " + sys.stdin.readline().strip())\nlistener = ready()\nhold()\n')
    stage.viewer("note('viewer ' + open(sys.argv[-1]).read().split('unix-path=')[1].split()[0])\n")
    code, _, err = stage.run(patch=patched())
    assert (code, err) == (0, "")
    assert stage.all_noted("asked") == ["menu --json"]
    assert stage.all_noted("line") == ["open --json --wait --keep vm1"]
    assert stage.noted("viewer").endswith("/s1")


def test_a_connection_that_ended_meanwhile_costs_another_login_only(stage: Stage) -> None:
    stage.ssh(f'{MENU}say("refused", code=75, reason="too long", hint="")\nsys.exit(75)\n')
    stage.viewer("")
    assert stage.run(patch=patched("not hosts.hand_over('kvm')"))[0] == 0
    assert stage.all_noted("asked") == ["menu --json", "open --json --wait --keep vm1"]


def test_a_fresh_list_replaces_the_old_one(stage: Stage) -> None:
    stage.ssh(
        f"{MENU}sys.stdin.readline()\n"
        'say("vms", vms=[dict(name="vm2", state="free")])\n'
        'asked = "list"\nwhile asked.startswith("list"):\n    asked = sys.stdin.readline()\n'
        'note("line " + asked.strip())\nready()\nhold()\n'
    )
    stage.viewer("")
    assert stage.run(patch=patched("hosts.refresh() or rows[0].name == 'vm2'"))[0] == 0
    assert stage.noted("line") == "open --json --wait --keep vm2"


def test_the_connections_to_the_other_hosts_end_with_the_pick(stage: Stage) -> None:
    stage.configure(hosts='{"lab-*" = "lab"}')
    stage.ssh(f"{MENU}sys.stdin.readline()\nlistener = ready()\nhold()\n")
    client = stage.start(patch=patched("len(hosts.take()) == 2"))
    stage.pid("viewer")
    eventually(lambda: len([p for p in stage.all_noted("ssh") if is_alive(int(p))]) == 1)
    client.terminate()
    client.wait(10)
