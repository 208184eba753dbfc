"""``python -m benchmarks.run`` says what is wrong with arguments and with results that are there, and overwrites none."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engines, run
from benchmarks.cell import Cell, run_cell

ONE = ["--algo", "dqn", "--env", "MetaBandit-v0", "--n-timesteps", "1000", "--n-evaluations", "2"]


def refuse(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str | Path) -> str:
    """What is said when a command is refused; it must not have trained anything."""

    def trained(*_: Any) -> None:
        raise AssertionError("trained")

    for module, name in ((run, "run_cell"), (run, "run_local"), (run, "run_ray")):
        monkeypatch.setattr(module, name, trained)
    monkeypatch.setattr(sys, "argv", ["benchmarks.run", *map(str, arguments)])
    with pytest.raises(SystemExit) as refusal:
        run.main()
    assert refusal.value.code not in (0, None)
    return capsys.readouterr().err if refusal.value.code == 2 else str(refusal.value)


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a cell that has finished."""
    folder = tmp_path_factory.mktemp("finished")
    run_cell(Cell("dqn", "MetaBandit-v0", 0, folder, 1000, n_evaluations=2))
    return contents(folder)


@pytest.fixture
def results(finished: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder with them."""
    for name, content in finished.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--algo", "dreem", "--env", "MetaMap-v0"], ["--algo", "'dreem'", "dqn", "dream", "ppo_lstm"]),
        (["--suite", "papre"], ["--suite", "'papre'", "control", "paper"]),
        (["--suite", "paper", "--engine", "rai"], ["--engine", "'rai'", "local", "ray"]),
        (["--env", "MetaMaps-v0"], ["--env", "no 'MetaMaps-v0'", "Did you mean MetaMap-v0"]),
        (["--env", "Xyz"], ["--env", "no 'Xyz'", "MetaBandit-v0", "MetaSign-v0"]),
        (["--suite", "control", "--algo", "dqn"], ["--algo: suite control has no ['dqn']", "'recurrent_dqn'"]),
        (
            ["--suite", "control", "--env", "MetaBandit-v0"],
            ["--env: suite control has no ['MetaBandit-v0']", "['MetaMap-v0']"],
        ),
        (["--suite", "paper", "--seed", "4", "7"], ["--seed: suite paper has no [7]", "[0, 1, 2, 3, 4]"]),
        (["--suite", "paper", "--env-kwargs", "{}"], ["--env-kwargs"]),
        ([], ["--env or --suite"]),
        (["--env", "MetaMap-v0", "--seed", "-1"], ["--seed", "at least 0, got -1"]),
        (["--env", "MetaMap-v0", "--n-timesteps", "0"], ["--n-timesteps", "at least 1, got 0"]),
        (["--env", "MetaMap-v0", "--n-jobs", "two"], ["--n-jobs", "'two'"]),
        (["--env", "MetaMap-v0", "--env-kwargs", "4"], ["--env-kwargs", "got '4'"]),
        (["--env", "MetaMap-v0", "MetaBandit-v0", "--folder", "x"], ["--folder takes one algorithm and one environment"]),
        (["--suite", "paper", "--ray-address", "auto"], ["--ray-address goes with --engine ray"]),
        (["--suite", "paper", "--device", "gpu"], ["--device: ", "gpu"]),
        (["--suite", "paper", "--engine", "ray", "--device", "cuda:1"], ["--device: Ray shows a cell one GPU", "cuda:1"]),
        (["--algo", "dqn", "--env", "MetaSign-v0"], ["dqn.yml has no settings for 'MetaSign-v0', only for", "MetaMap-v0"]),
    ],
)
def test_arguments(arguments: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """An error from the depths, after minutes, or a run that is not what was meant."""
    said = refuse(monkeypatch, capsys, *arguments)
    assert [part for part in parts if part not in said] == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--n-timesteps", "9000"], ["n_timesteps was 1024 and is now 9000"]),
        (["--n-evaluations", "3"], ["n_evaluations was 2 and is now 3"]),
        (["--env-kwargs", '{"n_arms": 8}'], ["env_kwargs was None and is now {'n_arms': 8}"]),
        (["--algo", "recurrent_dqn"], ["algo was 'dqn' and is now 'recurrent_dqn'", "n_envs was 32 and is now 8"]),
        (["--env", "MetaMap-v0"], ["env was 'MetaBandit-v0' and is now 'MetaMap-v0'"]),
    ],
)
def test_a_finished_cell_of_another_run(
    arguments: list[str], parts: list[str], results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """What was measured would be lost, or taken for what it is not."""
    before = contents(results)
    said = refuse(monkeypatch, capsys, *ONE, *arguments, "--folder", results)
    assert [part for part in [str(results / "seed_0.json"), "--folder", *parts] if part not in said] == []
    assert contents(results) == before


def test_settings_that_have_changed(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The same, where the file of settings is another."""
    record = json.loads((results / "seed_0.json").read_text(encoding="utf8"))
    record["settings"]["gamma"] = 0.5
    (results / "seed_0.json").write_text(json.dumps(record), encoding="utf8")
    assert "gamma was 0.5 and is now 0.99" in refuse(monkeypatch, capsys, *ONE, "--folder", results)


@pytest.mark.parametrize("value", [0, 0.0, False])
def test_settings_that_are_zero(value: Any, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Zero is another setting than the default."""
    record = json.loads((results / "seed_0.json").read_text(encoding="utf8"))
    record["settings"]["tau"] = value
    (results / "seed_0.json").write_text(json.dumps(record), encoding="utf8")
    assert f"tau was {value} and is now None" in refuse(monkeypatch, capsys, *ONE, "--folder", results)
    settings = Cell("dream", "MetaBandit-v0", 0, results).description
    assert settings["learning_starts"] == 0


def test_records_before_they_named_their_cell(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The committed results are older than suites, and stay valid. ``ramp_x`` has another spelling now."""
    path = results / "seed_0.json"
    record = json.loads(path.read_text(encoding="utf8"))
    for key in ("algo", "env", "seed", "n_evaluations"):
        del record[key]
    record["settings"]["learning_rate"] = "ramp_0.001"
    path.write_text(json.dumps(record), encoding="utf8")
    said = refuse(monkeypatch, capsys, *ONE, "--folder", results)
    assert "another run: learning_rate was 'ramp_0_0.001_0' and is now 'lin_0.001'. It stays" in said


@pytest.mark.parametrize(
    ("damage", "line", "reason"),
    [
        (lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]], 3, "each column"),
        (lambda lines: [*lines[:-1], lines[-1][:-2]], 3, "cut in the middle"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b",", b",1,", 1)], 3, "each column"),
        (lambda lines: [lines[0], lines[1].replace(b",", b",x", 1), lines[2]], 2, "each column"),
        (lambda lines: [lines[0], lines[2], lines[1]], 3, "do not go up"),
        (lambda lines: [lines[0].replace(b"test/return", b"return"), *lines[1:]], 1, "no test/return"),
        (lambda lines: lines[:-1], 2, "ends at 512 steps, but seed_0.json at 1024"),
        (lambda lines: lines[:1], 2, "no evaluation"),
        (lambda lines: [], 1, "no timesteps"),
    ],
)
@pytest.mark.parametrize("has_finished", [True, False])
def test_broken_rows(
    damage: Any, line: int, reason: str, has_finished: bool, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A curve that is not whole would be drawn as it is, or written over."""
    path = results / "seed_0.csv"
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    if not has_finished:
        (results / "seed_0.json").unlink()
        if "seed_0.json" in reason:
            line, reason = 0, "of a run that did not finish, and its checkpoint is gone"
    before = contents(results)
    said = refuse(monkeypatch, capsys, *ONE, "--folder", results)
    assert (f"{path}, line {line}: " if line else str(path)) in said and reason in said
    assert contents(results) == before


def test_a_record_that_is_cut(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The cell would seem unfinished, and be run over what is there."""
    path = results / "seed_0.json"
    path.write_bytes(path.read_bytes()[:200])
    before = contents(results)
    assert f"{path}, line " in refuse(monkeypatch, capsys, *ONE, "--folder", results)
    assert contents(results) == before


def test_a_record_without_a_curve(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The same."""
    (results / "seed_0.csv").unlink()
    assert "its curve seed_0.csv is not" in refuse(monkeypatch, capsys, *ONE, "--folder", results)


def test_a_checkpoint_of_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Half of a curve with other settings than the rest."""
    state = tmp_path / "seed_0.checkpoint" / "state.json"
    state.parent.mkdir()
    was = Cell("dqn", "MetaBandit-v0", 0, tmp_path, 2000, n_evaluations=2).description
    state.write_text(json.dumps({"run": was, "rows": []}), encoding="utf8")
    said = refuse(monkeypatch, capsys, *ONE, "--folder", tmp_path)
    assert f"{state.parent} is of a run that did not finish" in said and "n_timesteps was 2000 and is now 1000" in said
    state.write_text('{"run"', encoding="utf8")
    assert f"{state}, line 1: " in refuse(monkeypatch, capsys, *ONE, "--folder", tmp_path)


def test_a_folder_of_another_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Cells of two comparisons in one table."""
    (tmp_path / "suite.json").write_text('{"suite": "paper"}', encoding="utf8")
    before = contents(tmp_path)
    said = refuse(monkeypatch, capsys, "--suite", "control", "--folder", tmp_path)
    assert f"{tmp_path} has the results of suite 'paper' (see suite.json), and cannot take those of 'control'" in said
    assert f"{tmp_path} has the results of suite 'paper'" in refuse(monkeypatch, capsys, *ONE, "--folder", tmp_path)
    (tmp_path / "suite.json").write_text("{", encoding="utf8")
    assert "suite.json does not say which suite" in refuse(monkeypatch, capsys, "--suite", "control", "--folder", tmp_path)
    assert set(contents(tmp_path)) == set(before)


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit, match=r"needs Ray: pip install 'sb3_dream\[ray\]'"):
        next(engines.run_ray([], n_jobs=1))
