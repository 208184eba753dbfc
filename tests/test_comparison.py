"""``python -m benchmarks.report`` on made-up results whose figures can be worked out by hand."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rliable import metrics

from benchmarks import comparison, report
from benchmarks.comparison import (
    band,
    compare,
    first_above,
    interquartile_means,
    probabilities_of_improvement,
    reached,
    thresholds,
)
from benchmarks.families import CONTROL, NAMES, read_families

_BANDIT, _ALONE = "MetaBandit-v0-n_arms=16", "MetaBandit-v0-n_arms=4"
#: exact: with the problem known, and without exploring
_OPTIMUM, _UNEXPLORED = 1.0, 1 / 16


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "N_RESAMPLES", 200)


def write_run(
    results: Path, algo: str, env: str, seed: int, returns: list[float], train: list[float] | None = None, every: int = 1000
) -> Path:
    """A run with an evaluation each ``every`` steps, which take a second of processor time and two on the wall."""
    folder = results / algo / env
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, float]] = []
    for i, value in enumerate(returns, start=1):
        rows.append({"timesteps": i * every, "seconds": 2.0 * i, "cpu_seconds": 1.0 * i, "test/return": value})
        if train is not None:
            rows[-1]["train/return"] = train[i - 1]
    path = folder / f"seed_{seed}.csv"
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    kwargs = {_BANDIT: {"n_arms": 16}, _ALONE: {"n_arms": 4}, CONTROL: {"map_position": [4, 4]}}.get(env, {})
    optimum = {"test": {_BANDIT: _OPTIMUM, _ALONE: 1.0, "MetaCooking-v0": 0.467}.get(env, 0.8)}
    record: dict[str, Any] = {
        "settings": {"env_kwargs": kwargs} if kwargs else {},
        "n_timesteps": rows[-1]["timesteps"],
        "seconds": rows[-1]["seconds"],
        "cpu_seconds": rows[-1]["cpu_seconds"],
        "peak_memory_mb": 1,
        "optimum": optimum | ({"train": 0.399} if train is not None else {}),
        "final": rows[-1],
    }
    path.with_suffix(".json").write_text(json.dumps(record), encoding="utf8")
    return path


def run_report(results: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As from the command line; the table."""
    monkeypatch.setattr(sys, "argv", ["report", "--folder", str(results)])
    report.main()
    return (results / "comparison" / "table.md").read_text(encoding="utf8")


def rows_of(page: str, begin: str) -> list[list[str]]:
    """The cells of the rows that begin so."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith(f"| {begin}")
    ]


def test_the_mean_is_of_the_middle_half() -> None:
    """An outlier among the seeds would decide the table."""
    mean, family = interquartile_means([np.array([-100.0, 1.0, 2.0, 3.0])])
    assert mean == family
    assert mean.value == 1.5
    assert mean.low <= mean.value <= mean.high


def test_a_family_with_more_seeds_does_not_weigh_more() -> None:
    """Results arrive bit by bit. Two families at 0 and 1 average to 0.5, whichever has more seeds."""
    for zeros, ones in ((1, 1), (2, 5), (5, 3)):
        mean, *each = interquartile_means([np.zeros(zeros), np.ones(ones)])
        assert mean == (0.5, 0.5, 0.5)
        assert [family.value for family in each] == [0.0, 1.0]


def test_no_family_is_cut_from_the_mean() -> None:
    """Pooled, the best and the worst quarter of four families' runs are two whole families, which then count for nothing."""
    families = [np.full(5, value) for value in (1.0, 0.0, 0.2, -4.0)]
    assert interquartile_means(families)[0].value == pytest.approx(-0.7)
    assert metrics.aggregate_iqm(np.stack(families, axis=1)) == pytest.approx(0.1)


def test_probability_of_improvement_is_rliables() -> None:
    """Ours is a shortcut: it must not be another figure. A tie counts half; the families weigh the same."""
    mine, rival = np.array([0.9, 0.8, 0.8]), np.array([0.8, 0.1])
    average, each, same = probabilities_of_improvement([(mine, rival), (rival, rival)])
    assert (
        each.value == pytest.approx(metrics.probability_of_improvement(mine[:, None], rival[:, None])) == pytest.approx(5 / 6)
    )
    assert same.value == 0.5
    assert average.value == pytest.approx((5 / 6 + 0.5) / 2)
    assert each.low <= each.value <= each.high


def test_intervals_are_the_same_each_time() -> None:
    """A table that changes by itself cannot be compared with the committed one."""
    values = np.random.default_rng(0).normal(size=5)
    assert interquartile_means([values]) == interquartile_means([values])
    assert interquartile_means([values])[0].low < interquartile_means([values])[0].high


def test_runs_with_other_evaluation_steps_share_a_grid(tmp_path: Path) -> None:
    """Seeds that were evaluated at other steps cannot be averaged row by row; one that is over keeps its last return."""
    write_run(tmp_path, "dream", _BANDIT, 0, [0.1, 0.2, 0.3, 0.4])
    write_run(tmp_path, "dream", _BANDIT, 1, [0.2, 0.3], every=2000)
    write_run(tmp_path, "dream", _BANDIT, 2, [0.2, 0.6], every=2000)
    write_run(tmp_path, "dream", _BANDIT, 3, [0.2, 0.3, 0.3], every=2000)
    (family,) = read_families(tmp_path)
    curve = band(family.runs["dream"], "timesteps", "test/return", n_points=5)
    assert curve.x.tolist() == [2000, 3000, 4000, 5000, 6000]
    # of 0.2 0.2 0.2 0.2, of 0.3 0.25 0.4 0.25, of 0.4 0.3 0.6 0.3, and so on, the middle two
    np.testing.assert_allclose(curve.value, [0.2, 0.275, 0.35, 0.35, 0.35])
    assert (curve.low <= curve.value).all() and (curve.value <= curve.high).all()


def test_a_limit_is_reached_when_it_holds_for_two_evaluations(tmp_path: Path) -> None:
    """A lucky evaluation is no skill, and nor is one at the very end."""
    write_run(tmp_path, "dqn", _BANDIT, 0, [0.0, 0.5, 0.0, 0.5, 0.6, 0.0])
    write_run(tmp_path, "dqn", _BANDIT, 1, [0.0, 0.0, 0.0, 0.0, 0.0, 0.5])
    (family,) = read_families(tmp_path)
    one, never = family.runs["dqn"]
    assert first_above(one, "test/return", 0.5)["timesteps"] == 4000
    assert first_above(one, "test/return", 0.55)["timesteps"] == np.inf
    assert first_above(never, "test/return", 0.5)["cpu_seconds"] == np.inf
    assert thresholds(family) == pytest.approx((_UNEXPLORED + 1e-4, 0.95))
    assert reached(family, "dqn", 0.5) == (1, np.inf, np.inf, np.inf)
    write_run(tmp_path, "dqn", _BANDIT, 2, [0.5, 0.5])
    (family,) = read_families(tmp_path)
    assert reached(family, "dqn", 0.5) == (2, 4000.0, 4.0, 8.0)


def test_the_page_of_two_algorithms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure by hand, with missing cells, a single seed, and limits that are never reached."""
    for seed in range(3):
        write_run(tmp_path, "dream", _BANDIT, seed, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    half = (_OPTIMUM + _UNEXPLORED) / 2
    write_run(tmp_path, "import", _BANDIT, 0, [half] * 6)
    write_run(tmp_path, "dream", "MetaMap-v0", 0, [0.8] * 6)
    write_run(tmp_path, "varibad", "MetaMap-v0", 0, [0.3] * 6)
    write_run(tmp_path, "dream", _ALONE, 0, [1.0] * 6)
    page = run_report(tmp_path, monkeypatch)

    shares, improvement, dream = rows_of(page, "IMPORT")[0], rows_of(page, "IMPORT")[1], rows_of(page, "DREAM")[0]
    assert dream == ["DREAM", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00], n = 3", "1.00 [1.00, 1.00], n = 1"]
    assert shares == ["IMPORT", "0.50 [0.50, 0.50] (1 of 2 families)", "0.50 [0.50, 0.50], n = 1", "no results"]
    assert improvement == ["IMPORT", "1.00 [1.00, 1.00] (1 of 2 families)", "1.00 [1.00, 1.00], n = 1", "no results"]
    returns, times = rows_of(page, "bandit, 16 arms | IMPORT")
    assert returns[2:] == ["1", "0.531 [0.531, 0.531]", "0.531", "1.000", "0.062", "6k", "6 s"]
    assert times[2:] == ["1", "1k", "1 s", "2 s", "never", "never", "never"]
    assert rows_of(page, "bandit, 16 arms | DREAM")[1][2:] == ["3", "1k", "1 s", "2 s", "2k", "2 s", "4 s"]
    # exactly as good as not exploring is not above it
    assert rows_of(page, "map | VariBAD")[1][2:] == ["1", *["never"] * 6]
    assert _ALONE not in page
    for name in ("aggregate.png", "probability_of_improvement.png", "bandit_16_arms.png", "map.png"):
        assert f"({name})" in page
        assert Image.open(tmp_path / "comparison" / name).width > 1000
    assert f"| {_ALONE} | test | 1 | 1.000 |" in (tmp_path / "dream" / "table.md").read_text(encoding="utf8")


def test_the_control_is_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to explore: averaged with the others it would divide by zero. It says who is a rival."""
    write_run(tmp_path, "import", CONTROL, 0, [0.0, 0.8, 0.8, 0.8, 0.8, 0.8])
    write_run(tmp_path, "import", CONTROL, 1, [0.76] * 6)
    write_run(tmp_path, "varibad", CONTROL, 0, [0.8] * 6)
    write_run(tmp_path, "varibad", CONTROL, 1, [0.75] * 6)
    write_run(tmp_path, "dqn", CONTROL, 0, [0.3] * 6)
    page = run_report(tmp_path, monkeypatch)
    assert rows_of(page, "IMPORT") == [["IMPORT", "2", "100.0%, 95.0%", "97.5%", "95.0%", "yes", "2k", "2 s"]]
    assert rows_of(page, "VariBAD")[0][5] == "1 of 2 seeds"
    assert rows_of(page, "DQN")[0][5:] == ["no", "never", "never"]
    assert "All families together" not in page
    assert not (tmp_path / "comparison" / "aggregate.png").exists()


def test_a_run_on_a_gpu_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seconds beside those of one core would look like another algorithm's speed."""
    write_run(tmp_path, "dream", "MetaMap-v0", 0, [0.8] * 6)
    for seed, device in enumerate(("cpu", "cuda")):
        path = write_run(tmp_path, "varibad", "MetaMap-v0", seed, [0.3] * 6).with_suffix(".json")
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf8")) | {"device": device}), encoding="utf8")
        page = run_report(tmp_path, monkeypatch)
        assert len(rows_of(page, "map | VariBAD on a GPU |")) == (2 if device == "cuda" else 0)


def test_throughput_goes_by_processor_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that does other things as well, the wall clock measures those."""
    for algo in ("import", "varibad"):
        write_run(tmp_path, algo, CONTROL, 0, [0.8] * 6)
    figures = {"n_envs": 64, "steps_per_second": [10, 20, 90], "steps_per_cpu_second": [5000, 4000, 6000]}
    record = {"env": "MetaMap-v0", "n_rounds": 3, "n_steps": 16384, "algorithms": {"dqn": figures}}
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "throughput.json").write_text(json.dumps(record), encoding="utf8")
    page = run_report(tmp_path, monkeypatch)
    header = rows_of(page, "algorithm")[-1]
    assert header[1:4] == ["environment steps for a second of processor time", "of single rounds", "by the wall clock"]
    assert rows_of(page, "DQN") == [["DQN", "5,000", "4,000 to 6,000", "20", "64"]]


def test_searches_stand_beside_the_committed_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rival could look weak because nobody looked for better settings: how many were tried stands in the table, and what
    came of them. Optuna's trials that were ended early have no return."""
    for algo in ("dream", "import"):
        write_run(tmp_path, algo, CONTROL, 0, [0.8] * 6)
    write_run(tmp_path / "tuning", "import", "", 0, [0.1, 0.31])
    search = "number,value,state\n0,0.25,COMPLETE\n1,0.9,PRUNED\n2,,PRUNED\n3,0.3,COMPLETE\n"
    (tmp_path / "tuning" / "import" / "search.csv").write_text(search, encoding="utf8")
    page = run_report(tmp_path, monkeypatch)
    assert rows_of(page, "IMPORT")[-1] == ["IMPORT", "4", "2", "0.30 0.25", "0.31"]


def test_cooking_counts_once_with_its_training_problems(tmp_path: Path) -> None:
    """Its test split is one problem, and the limit without exploring is a mean over all of them."""
    for algo in ("dream", "import"):
        write_run(tmp_path, algo, "MetaCooking-v0", 0, [0.467] * 6, train=[0.399] * 6)
    compared = compare(list(read_families(tmp_path)))
    assert [family.title for family in compared.families] == ["cooking, test", "cooking, train"]
    assert [family.title for family in compared.averaged] == ["cooking, train"]
    assert compared.shares["import"]["cooking, train"].value == pytest.approx(1.0)
    assert next(iter(NAMES)) == comparison.OURS


def test_a_run_that_is_not_finished_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its curve would pass for a whole one, or stop the report in the middle of a suite."""
    for algo in ("dream", "import"):
        write_run(tmp_path, algo, _BANDIT, 0, [1.0] * 6)
    (tmp_path / "import" / _BANDIT / "seed_1.csv").write_text("timesteps,seco", encoding="utf8")
    page = run_report(tmp_path, monkeypatch)
    assert f"not finished: `import/{_BANDIT}/seed_1.csv`" in page
    assert rows_of(page, "bandit, 16 arms | IMPORT")[0][2] == "1"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-2], r"seed_0\.csv, line 7: cut in the middle"),
        (lambda text: text.replace("3000,6.0,3.0,1.0", "3000,6.0"), r"seed_0\.csv, line 4: "),
        (lambda text: text.replace("3000,6.0,3.0,1.0", "3000,6.0,3.0,one"), r"seed_0\.csv, line 4: .*one"),
        (lambda text: text.replace("3000,6.0", "2000,6.0"), r"seed_0\.csv, line 4: timesteps 2000 do not go up"),
        (lambda text: text.replace("test/return", "return"), r"seed_0\.csv, line 1: the header has no test/return"),
        (lambda text: text.splitlines()[0] + "\n", r"seed_0\.csv, line 2: no evaluation"),
        (
            lambda text: "".join(text.splitlines(keepends=True)[:-1]),
            r"seed_0\.csv, line 6: ends at 5000 steps, but .* at 6000",
        ),
        (lambda text: "", r"seed_0\.csv, line 1: the header has no "),
    ],
)
def test_a_damaged_curve_is_named(damage: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table made of half a file looks like a whole one."""
    path = write_run(tmp_path, "dream", _BANDIT, 0, [1.0] * 6)
    path.write_text(damage(path.read_text(encoding="utf8")), encoding="utf8")
    with pytest.raises(SystemExit, match=message):
        run_report(tmp_path, monkeypatch)
    assert not (tmp_path / "dream" / "table.md").exists()


def test_a_damaged_record_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a KeyError, without saying in which of a hundred files."""
    path = write_run(tmp_path, "dream", _BANDIT, 0, [1.0] * 6).with_suffix(".json")
    whole = path.read_text(encoding="utf8")
    path.write_text(whole[:-10], encoding="utf8")
    with pytest.raises(SystemExit, match=r"seed_0\.json, line 1: "):
        run_report(tmp_path, monkeypatch)
    path.write_text("{}", encoding="utf8")
    with pytest.raises(SystemExit, match=r"seed_0\.json: no record of a run, it has no final"):
        run_report(tmp_path, monkeypatch)
    path.write_text(whole, encoding="utf8")
    path.with_suffix(".csv").unlink()
    with pytest.raises(SystemExit, match=r"seed_0\.json is there, but its curve seed_0\.csv is not"):
        run_report(tmp_path, monkeypatch)
