"""`spicetunnel metrics`: as Prometheus' own parser reads it."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spicetunnel.admin.cli import run
from tests.unit.admin.answering import REFUSED, REFUSED_SAID, answering
from tests.unit.admin.test_status import found
from tests.unit.broker.server import Server

Output = pytest.CaptureFixture[str]
Figures = dict[tuple[str, str], float]  # by name and state


def figures(text: str) -> Figures:
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} == {"gauge"}
    assert all(family.documentation for family in families)
    return {
        (sample.name.removeprefix("spicetunnel_"), sample.labels.get("state", "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_all_figures(run_dir: Path, capsys: Output) -> None:
    with answering(run_dir, found(orphans=1, vms_unreachable=4)) as broker:
        assert run(["metrics", "--run-dir", broker.run_dir]) == 0
    got = figures(capsys.readouterr().out)
    assert got.pop(("map_loaded_seconds", "")) == pytest.approx(30 * 86400, abs=3700)
    assert got == {
        ("up", ""): 1,
        ("sessions", ""): 3,
        ("channels", ""): 21,
        ("orphans", ""): 1,
        ("relay_up", ""): 1,
        ("uptime_seconds", ""): 266_400,
        ("map_ok", ""): 1,
        ("map_grants", ""): 40,
        ("vms", "running"): 10,
        ("vms", "off"): 2,
        ("vms", "unreachable"): 4,
    }


def test_refused_map(run_dir: Path, capsys: Output) -> None:
    with answering(run_dir, found(map_ok=False)) as broker:
        assert run(["metrics", "--run-dir", broker.run_dir]) == 0
    assert figures(capsys.readouterr().out)["map_ok", ""] == 0


def test_without_a_broker_up_is_0(run_dir: Path, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "spicetunnel.prom"
    assert run(["metrics", "--output", str(file), "--run-dir", str(run_dir)]) == 0
    assert figures(file.read_text()) == {("up", ""): 0}
    assert capsys.readouterr().out == ""
    assert run(["metrics", "--run-dir", str(run_dir)]) == 0
    assert figures(capsys.readouterr().out) == {("up", ""): 0}


def test_file_is_replaced_whole(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "spicetunnel.prom"
    file.write_text("old")
    with file.open() as before:
        assert run(["metrics", "--output", str(file), "--run-dir", str(server.directory)]) == 0
        assert before.read() == "old"
    assert figures(file.read_text())["vms", "off"] == 2
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_file_that_cannot_be_written(run_dir: Path, capsys: Output) -> None:
    assert run(["metrics", "--output", "/no/\x1b.prom", "--run-dir", str(run_dir)]) == 73
    said = "spicetunnel: /no/\\x1b.prom cannot be written: no such file or directory\n"
    said += "hint: run it as a user who may write there, or name another file\n"
    assert capsys.readouterr().err == said


def test_refusal_of_the_broker(run_dir: Path, tmp_path: Path, capsys: Output) -> None:
    """Unlike a broker that is down, it leaves the file as it was."""
    file = tmp_path / "spicetunnel.prom"
    with answering(run_dir, REFUSED) as broker:
        words = ["--output", str(file), "--run-dir", broker.run_dir]
        assert run(["metrics", *words]) == 77
    assert capsys.readouterr().err == REFUSED_SAID
    assert not file.exists()
