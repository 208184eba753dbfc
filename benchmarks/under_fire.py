"""
``python -m benchmarks.under_fire``: train on MetaMap-v0, kill the training with SIGKILL at random moments (every other time
while it writes a checkpoint), resume it each time from what it left, and see whether anything is lost.

After each kill every file must be readable, and the next leg must begin at the newest checkpoint that was there. The final
return is printed beside that of a run which nobody disturbed. Writes ``benchmarks/results/dream/under_fire.json``.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import CheckpointCallback
from tqdm import tqdm

from benchmarks import machine
from benchmarks.evaluation import SplitEvaluation
from benchmarks.records import RESULTS, describe_source, describe_versions
from benchmarks.settings import load_settings, make_model, make_train_env
from sb3_dream import DREAM

ENV_ID = "MetaMap-v0"
#: between two checkpoints
CHECKPOINT_STEPS = 20_480


def newest_checkpoint(folder: Path) -> int:
    """
    :param folder: where CheckpointCallback writes
    :return: the number of steps of the newest model that has its replay buffer beside it; 0 if there is none
    """
    steps = [int(path.name.split("_")[1]) for path in folder.glob("model_*_steps.zip")]
    return max((n for n in steps if (folder / f"model_replay_buffer_{n}_steps.pkl").exists()), default=0)


def train(folder: Path, seed: int, total_timesteps: int) -> None:
    """
    Train to the end, from the newest checkpoint if there is one, and write ``result.json``.

    :param folder: where the checkpoints are
    :param seed: of everything
    :param total_timesteps: where the end is, resumed or not
    """
    settings = load_settings(ENV_ID)
    env = make_train_env(ENV_ID, settings, seed)
    if begin := newest_checkpoint(folder):
        model = DREAM.load(folder / f"model_{begin}_steps", env=env)
        model.load_replay_buffer(folder / f"model_replay_buffer_{begin}_steps")
    else:
        model = make_model(settings, env, seed=seed)
    print("learning from", model.num_timesteps, flush=True)
    checkpoints = CheckpointCallback(CHECKPOINT_STEPS // env.num_envs, str(folder), "model", save_replay_buffer=True)
    model.learn(total_timesteps - model.num_timesteps, checkpoints, reset_num_timesteps=False)
    figures = SplitEvaluation(ENV_ID, "test")(model)
    (folder / "result.json").write_text(json.dumps({"timesteps": model.num_timesteps, **figures}), encoding="utf8")


def kill_one_leg(folder: Path, command: list[str], rng: np.random.Generator, while_saving: bool) -> dict[str, Any]:
    """
    Start training, and kill it.

    :param folder: where the checkpoints are
    :param command: that trains
    :param rng: draws the moment
    :param while_saving: wait for the moment at which a checkpoint is being written
    :return: where the leg began, and whether it was killed and while saving
    """
    before = newest_checkpoint(folder)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        began = int(re.findall(r"learning from (\d+)", process.stdout.readline())[0])
        time.sleep(rng.uniform(0.5, 8.0))
        while while_saving and process.poll() is None and not list(folder.glob(".*.tmp")):
            time.sleep(0.0005)
        saving = bool(list(folder.glob(".*.tmp")))
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
    return {"began_at": began, "newest_checkpoint": before, "killed": killed, "while_saving": saving}


def unreadable_files(folder: Path) -> list[str]:
    """
    Load every checkpoint, and remove all but the newest.

    :param folder: where the checkpoints are
    :return: the names of those that cannot be loaded
    """
    newest, bad = newest_checkpoint(folder), []
    reader = make_model({**load_settings(ENV_ID)}, make_train_env(ENV_ID, load_settings(ENV_ID), 0))
    for path in sorted([*folder.glob("*.zip"), *folder.glob("*.pkl")]):
        try:
            if path.suffix == ".zip":
                DREAM.load(path)
            else:
                reader.load_replay_buffer(path)
        except Exception as error:
            bad.append(f"{path.name}: {error}")
        if f"_{newest}_steps" not in path.name:
            path.unlink()
    return bad


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-kills", type=int, default=20)
    parser.add_argument("--n-timesteps", type=int, help="instead of the settings' own")
    parser.add_argument("--output", type=Path, default=RESULTS / "dream" / "under_fire.json")
    parser.add_argument("--leg", type=Path, help=argparse.SUPPRESS)  # the process that is killed
    args = parser.parse_args()
    machine.prepare()
    total = int(args.n_timesteps or load_settings(ENV_ID)["n_timesteps"])
    if args.leg:
        train(args.leg, args.seed, total)
        return

    source = describe_source("benchmarks.under_fire")
    command = [sys.executable, "-m", "benchmarks.under_fire", f"--seed={args.seed}", f"--n-timesteps={total}"]
    results: dict[str, Any] = {}
    legs: list[dict[str, Any]] = []
    rng = np.random.default_rng(args.seed)
    for name, n_kills in {"undisturbed": 0, "under_fire": args.n_kills}.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            leg_command = [*command, f"--leg={folder}"]
            for kill in tqdm(range(n_kills), desc="kills"):
                leg = kill_one_leg(folder, leg_command, rng, while_saving=kill % 2 == 1)
                legs.append({**leg, "unreadable": unreadable_files(folder)})
            subprocess.run(leg_command, check=True, stdout=subprocess.DEVNULL)
            results[name] = json.loads((folder / "result.json").read_text(encoding="utf8"))
    record = {
        **source,
        "kills": sum(leg["killed"] for leg in legs),
        "kills_while_saving": sum(leg["killed"] and leg["while_saving"] for leg in legs),
        "unreadable_files": [name for leg in legs for name in leg["unreadable"]],
        "legs_that_began_before_their_checkpoint": sum(leg["began_at"] < leg["newest_checkpoint"] for leg in legs),
        **results,
        "legs": legs,
        "versions": describe_versions(),
    }
    args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    print(json.dumps({key: value for key, value in record.items() if key not in ("legs", "versions")}, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
