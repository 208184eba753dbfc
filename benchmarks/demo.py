"""
``make demo``: train DREAM on MetaDistractingBus-v0, evaluate it on every problem that it has not seen, save the model and
an animated picture of one trial.
"""

import argparse
import time
from pathlib import Path

import gymnasium as gym

from benchmarks import machine
from benchmarks.evaluation import SplitEvaluation
from benchmarks.settings import load_settings, make_model, make_train_env
from sb3_dream.common.visualization import record_trial

ENV_ID = "MetaDistractingBus-v0"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-timesteps", type=int, help="instead of the settings' own, e.g. for a quick look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("logs/demo"), help="where to write the model and the picture")
    args = parser.parse_args()

    machine.prepare()
    settings = load_settings(ENV_ID)
    total = args.n_timesteps or int(settings["n_timesteps"])
    evaluation = SplitEvaluation(ENV_ID, "test")
    model = make_model(settings, make_train_env(ENV_ID, settings, args.seed), seed=args.seed)
    print(f"Training DREAM on {ENV_ID}: {total:,} steps in {settings['n_envs']} environments side by side")
    begin = time.perf_counter()
    model.learn(total, progress_bar=True)
    seconds = time.perf_counter() - begin
    print(f"Trained in {seconds:.0f} s ({model.num_timesteps / seconds:,.0f} environment steps/s, updates included)")

    figures = evaluation(model)
    print(f"Test return, mean over all {len(evaluation.problem_ids)} unseen problems and 4 goals, greedy, no problem ID:")
    print(f"  DREAM                          {figures['test/return']:.3f}")
    print(f"  exact optimum, problem known   {evaluation.optimum:.3f}")
    print(f"  best without exploring         {evaluation.family.no_exploration_return():.3f}")
    for name, value in figures.items():
        if name != "test/return":
            print(f"  {name.removeprefix('test/').replace('_', ' '):<30} {value:.2f}")

    args.folder.mkdir(parents=True, exist_ok=True)
    model_path, picture_path = args.folder / "dream_distracting_bus.zip", args.folder / "trial.gif"
    model.save(model_path)
    env = gym.make(ENV_ID, split="test", render_mode="rgb_array")
    record_trial(model, env, picture_path, seed=args.seed)
    print(f"Wrote {model_path} and {picture_path} (exploration, execution, and what the agent made of it)")


if __name__ == "__main__":
    main()
