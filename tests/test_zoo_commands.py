"""``python -m sb3_dream.zoo``: every command of the documentation runs, with few steps, and writes what the page says."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from matplotlib import pyplot as plt
from PIL import Image

ROOT = Path(__file__).parents[1]
COMMAND = "python -m sb3_dream.zoo "
#: what makes them short; a later option counts
SHORT = {
    "train": "-n 1000 --eval-freq 500 --eval-episodes 2 --n-eval-envs 2 --seed 0 --device cpu",
    "enjoy": "-n 60 --device cpu",
    "record": "",
    "plot_train": "-w 2",
    "all_plots": "",
}
Call = Callable[[str], str]


@pytest.fixture
def call(zoo: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command line in an empty folder and returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    plt.switch_backend("agg")

    def run(arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["zoo.py", *shlex.split(arguments)])
        capsys.readouterr()
        zoo.main()
        return capsys.readouterr().out

    return run


def documented() -> list[str]:
    """The commands of README and of the page, in their order."""
    text = "".join((ROOT / page).read_text(encoding="utf8") for page in ("README.md", "docs/guide/zoo.md"))
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(COMMAND)]
    return [line.removeprefix(COMMAND).split("  #")[0] for line in lines]


def test_the_documented_commands(call: Call, tmp_path: Path) -> None:
    """What a newcomer copies must work, one after the other."""
    commands = documented()
    assert {command.split()[0] for command in commands} == set(SHORT)
    printed = {}
    for command in commands:
        few = "-n 240 --n-trials 2 --n-evaluations 1 --n-startup-trials 1" if "-optimize" in command else ""
        printed[command] = call(f"{command} {SHORT[command.split()[0]]} {few}")
    enjoyed = next(text for command, text in printed.items() if command.startswith("enjoy"))
    assert "Mean reward: -" in enjoyed
    assert Image.open(tmp_path / "trial.gif").n_frames > 5  # type: ignore[attr-defined]
    for name in ("plot_train_dream_MetaMap-v0_Training_Episodic_Reward", "all_plots_dream_ppo_lstm_Results_MetaMap-v0"):
        colours = Image.open(tmp_path / "logs" / f"{name}.png").convert("RGB").getcolors(1 << 20)
        assert colours is not None
        assert len(colours) > 50, "the figure is empty"
    (report,) = (tmp_path / "logs" / "dream").glob("report_MetaBandit-v0_*.csv")
    assert len(report.read_text(encoding="utf8").splitlines()) == 3
    # the search has taken the second number
    (found,) = (tmp_path / "logs" / "dream").glob("MetaBandit-v0_3/MetaBandit-v0/config.yml")
    assert "policy_kwargs.encoder_weight_decay" in yaml.safe_load(found.read_text(encoding="utf8"))


def test_evaluation_counts_trials(call: Call, tmp_path: Path) -> None:
    """``--eval-episodes 6`` is six trials, exploration included: of the bandit, with two execution episodes, five steps."""
    call(
        "train --algo dream --env MetaBandit-v0 -n 480 --eval-freq 240 --eval-episodes 6 --n-eval-envs 2 --device cpu "
        "--env-kwargs n_arms:4 --eval-env-kwargs n_arms:4 n_execution_episodes:2 split:\"'test'\""
    )
    evaluations = np.load(tmp_path / "logs/dream/MetaBandit-v0_1/evaluations.npz")
    assert evaluations["timesteps"].tolist() == [240, 480]
    assert (evaluations["ep_lengths"] == 5).all()
    assert evaluations["results"].shape == (2, 6)
    assert set(evaluations["results"].flat) <= {0.0, 1.0, 2.0}


def test_normalised_models(call: Call) -> None:
    """RecurrentDQN on CartPole without velocities is trained under VecNormalize; enjoy takes its statistics along, and
    record, which cannot, says so instead of showing an agent that sees nonsense."""
    folder = "--algo recurrent_dqn --env CartPoleNoVel-v1"
    call(f"train {folder} -n 400 --eval-freq 200 --eval-episodes 1 --device cpu")
    assert "Loading running average" in call(f"enjoy {folder} --no-render -n 60 --device cpu")
    with pytest.raises(SystemExit, match=r"record takes models that see the trials as they are.*\['normalize'\]"):
        call(f"record {folder}")


def test_enjoy_plays_what_was_evaluated(call: Call) -> None:
    """``--eval-env-kwargs`` replaces training's arguments in evaluation; enjoy used to mix them."""
    model = "--algo dream --env MetaBandit-v0"
    call(
        f"train {model} -n 80 --eval-freq -1 --device cpu --env-kwargs n_execution_episodes:2 "
        "--eval-env-kwargs split:\"'test'\""
    )
    assert "Mean episode length: 3.00" in call(f"enjoy {model} --no-render -n 30 --device cpu")
    last = call(f"enjoy {model} --no-render -n 30 --device cpu --env-kw n_execution_episodes:3")
    assert "Mean episode length: 7.00" in last, "the command line has the last word"


@pytest.mark.filterwarnings("ignore:.*doesn't natively support it")
def test_a_window(call: Call) -> None:
    """enjoy opens one unless told not to. It used to stop with an error about ``render_mode``."""
    call("train --algo dream --env MetaBandit-v0 -n 80 --eval-freq -1 --device cpu")
    assert "Mean episode length: 3.00" in call("enjoy --algo dream --env MetaBandit-v0 -n 6 --device cpu")


def test_going_on(call: Call, tmp_path: Path) -> None:
    """A saved model and its replay buffer are where the next run begins."""
    line = "train --algo dream --env MetaBandit-v0 -n 240 --eval-freq -1 --device cpu --save-replay-buffer"
    call(line)
    assert "Loading replay buffer" in call(f"{line} -i logs/dream/MetaBandit-v0_1/MetaBandit-v0.zip")
    assert (tmp_path / "logs/dream/MetaBandit-v0_2/MetaBandit-v0.zip").exists()


def test_an_empty_figure_is_named(call: Call, tmp_path: Path) -> None:
    """rl_zoo3 draws nothing for a run with fewer trials than the window, and says nothing."""
    call("train --algo dream --env MetaBandit-v0 -n 240 --eval-freq -1 --device cpu")
    with pytest.warns(UserWarning, match="No artists"):
        assert "Training Episodic Reward is empty: fewer trials" in call("plot_train -a dream -e MetaBandit-v0 -w 5000")


def test_unknown_names(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """Algorithm, environment, settings and model: each error says what there is."""
    with pytest.raises(SystemExit):
        call("train --algo dreem --env MetaMap-v0")
    assert "invalid choice: 'dreem'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("trian --algo dream")
    assert "invalid choice: 'trian'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="MetaMop-v0 not found in gym registry, you maybe meant MetaMap-v0"):
        call("train --algo dream --env MetaMop-v0")
    with pytest.raises(ValueError, match=r"dream.yml has no settings for 'CartPole-v1', only for .*MetaMap.*--conf-file"):
        call("train --algo dream --env CartPole-v1")
    with pytest.raises(AssertionError, match="logs/dream folder was not found"):
        call("record --algo dream --env MetaMap-v0")


def test_without_rl_zoo3(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: whoever has not installed it gets one line that says how, and no traceback."""
    for name in [name for name in sys.modules if name.split(".")[0] == "rl_zoo3" or name == "sb3_dream.zoo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    message = r"^The zoo needs rl_zoo3 \(there is no rl_zoo3.*\): pip install 'sb3_dream\[zoo\]'$"
    with pytest.raises(SystemExit, match=message):
        runpy.run_module("sb3_dream.zoo", run_name="__main__")
    with pytest.raises(ImportError, match=message):
        runpy.run_module("sb3_dream.zoo", run_name="zoo")


def test_as_a_program(tmp_path: Path) -> None:
    """The whole of it in a process of its own, where rl_zoo3 has put its TimeLimit everywhere; and what it saves does not
    depend on having been ``__main__``."""
    line = (
        f"{sys.executable} -m sb3_dream.zoo train --algo dream --env MetaMap-v0 -n 200 --eval-freq -1 --seed 0 -f {tmp_path}"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(shlex.split(line), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"Saving to {tmp_path}/dream/MetaMap-v0_1" in result.stdout
    data = (tmp_path / "dream/MetaMap-v0_1/MetaMap-v0.zip").read_bytes()
    assert b"__main__" not in data
