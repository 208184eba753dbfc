"""
The pictures of docs/guide/pictures.md: a trained agent's trial, moving and as one figure, and its z-space.

``python -m benchmarks.pictures --env MetaMap-v0`` trains with the settings in benchmarks/hyperparams/dream.yml;
``--model map.zip`` takes an agent that is there.
"""

import argparse
import os
from pathlib import Path

import gymnasium as gym

from benchmarks import machine
from benchmarks.settings import load_settings, make_model, make_train_env
from sb3_dream import DREAM, TrialExplanation, plot_trial, plot_z_space, record_trial


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="MetaMap-v0", help="a registered id")
    parser.add_argument("--model", type=Path, help="an agent, instead of training one")
    parser.add_argument("--seed", type=int, default=0, help="of training, and of the first trial")
    parser.add_argument("--n-timesteps", type=int, help="instead of the settings' own, e.g. for a quick look")
    parser.add_argument("--n-trials", type=int, default=6, help="in z-space")
    parser.add_argument("--suffix", default=".gif", choices=[".gif", ".mp4"], help="of the moving picture")
    parser.add_argument("--folder", type=Path, default=Path("docs/images"), help="where to write")
    args = parser.parse_args()

    machine.prepare()
    if args.model is None:
        settings = load_settings(args.env)
        model = make_model(settings, make_train_env(args.env, settings, args.seed), seed=args.seed)
        model.learn(args.n_timesteps or int(settings["n_timesteps"]), progress_bar=True)
    else:
        model = DREAM.load(args.model)

    args.folder.mkdir(parents=True, exist_ok=True)
    name = str(args.folder / args.env.removeprefix("Meta").removesuffix("-v0").lower())
    env = gym.make(args.env, split="test", render_mode="rgb_array")
    trial = record_trial(model, env, f"{name}_explained{args.suffix}", seed=args.seed)
    assert isinstance(trial, TrialExplanation)
    plot_trial(trial).savefig(f"{name}_trial.png", dpi=80)
    silent = gym.make(args.env, split="test")
    trials = [model.explain(silent, seed=args.seed + number) for number in range(args.n_trials)]
    plot_z_space(trials).savefig(f"{name}_z_space.png", dpi=80)
    print(f"Wrote {name}_explained{args.suffix}, {name}_trial.png and {name}_z_space.png")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
