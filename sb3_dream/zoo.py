"""
``python -m sb3_dream.zoo COMMAND ...``: rl_zoo3 (``pip install 'sb3_dream[zoo]'``) with the algorithms, environments and
settings here. The options are rl_zoo3's: ``python -m sb3_dream.zoo train --help``.

- ``train``: one model with its committed settings, evaluated on the test split on the way; with ``-optimize`` a search for
  settings
- ``enjoy``: play trials of the test split with a saved model, and print their returns
- ``record``: an animated picture of one of them
- ``plot_train``, ``all_plots``: figures of what ``train`` has written, saved beside it, and shown where there is a screen
"""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib as mpl
from matplotlib import pyplot as plt
from stable_baselines3.common.vec_env import VecEnv

from sb3_dream import record_trial
from sb3_dream.algorithms import ALGORITHMS
from sb3_dream.common.settings import HYPERPARAMS, load_settings, parse_settings

try:
    # rl_zoo3 replaces Gymnasium's TimeLimit, for the whole process: nothing else here imports it
    import optuna
    import rl_zoo3.enjoy
    import rl_zoo3.train
    from rl_zoo3.exp_manager import ExperimentManager
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
    from rl_zoo3.utils import ALGOS, StoreDict, create_test_env, get_model_path, get_saved_hyperparams

    with mpl.rc_context():  # it changes the style of every figure
        from rl_zoo3.plots import all_plots, plot_train
except ModuleNotFoundError as error:
    MISSING = f"The zoo needs rl_zoo3 (there is no {error.name}): pip install 'sb3_dream[zoo]'"
    raise (SystemExit(MISSING) if __name__ == "__main__" else ImportError(MISSING)) from error

#: what is searched: by setting a list to choose from, or the two ends of a range of which the logarithm is drawn
Space = dict[str, list[Any] | tuple[float, float]]

_RECURRENT: Space = {
    "learning_rate": (5e-4, 1e-2),
    "gamma": [0.9, 0.95, 0.97, 0.99],
    "batch_size": [32, 64, 128],
    "train_freq": [1, 2, 4, 8],
    "target_update_interval": [64, 256, 1024],
    "exploration_fraction": [0.05, 0.1, 0.2, 0.4],
    "exploration_final_eps": [0.01, 0.05, 0.1, 0.2],
    "policy_kwargs.lstm_hidden_size": [32, 64, 128],
}


#: of each algorithm here, and of others where our settings are used
SPACES: dict[str, Space] = {
    "dream": {
        **_RECURRENT,
        "explorer_fraction": [0.2, 0.4, 0.6, 0.8],
        "explorer_final_eps": [0.01, 0.05, 0.1, 0.2],
        "exploration_cost": (1e-3, 3e-2),
        "policy_kwargs.embedding_dim": [8, 16, 32, 64],
        "policy_kwargs.encoder_weight_decay": [0.0, 0.02, 0.05, 0.1],
        "policy_kwargs.decoder_weight_decay": [0.0, 0.05, 0.1, 0.2],
    },
    "recurrent_dqn": {**_RECURRENT, "tau": (5e-3, 1.0), "policy_kwargs.enable_peaks": [False, True]},
    "import": {
        **_RECURRENT,
        "belief_weight": (1e-2, 1e1),
        "policy_kwargs.embedding_dim": [8, 16, 32, 64],
        "policy_kwargs.enable_peaks": [False, True],
    },
    "varibad": {
        **_RECURRENT,
        "kl_weight": (1e-3, 1.0),
        "n_prefixes": [2, 4, 8],
        "policy_kwargs.latent_dim": [4, 8, 16],
        "policy_kwargs.enable_peaks": [False, True],
    },
    "ppo_lstm": {
        "learning_rate": (5e-4, 1e-2),
        "gamma": [0.9, 0.95, 0.97, 0.99],
        "n_steps": [32, 64, 128],
        "batch_size": [512, 1024, 2048],
        "n_epochs": [2, 4, 8],
        "gae_lambda": [0.8, 0.9, 0.95],
        "ent_coef": (1e-2, 1.0),
        "policy_kwargs.lstm_hidden_size": [64, 128],
    },
    "dqn": {
        "learning_rate": (3e-4, 1e-2),
        "gamma": [0.9, 0.95, 0.97, 0.99],
        "batch_size": [128, 256, 512],
        "train_freq": [1, 2, 4],
        "gradient_steps": [1, 2, 4],
        "target_update_interval": [256, 1024, 4096],
        "exploration_fraction": [0.1, 0.2, 0.4],
        "exploration_final_eps": [0.01, 0.05, 0.1, 0.2],
    },
}


def to_settings(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    :param sampled_params: of an Optuna trial
    :return: settings as they could be written in a file: the learning rate falls linearly
    """
    return {**sampled_params, "learning_rate": f"lin_{sampled_params['learning_rate']}"}


def make_sampler(space: Space) -> Callable[..., dict[str, Any]]:
    """
    :param space: what is searched
    :return: a function that draws settings for an Optuna trial, as rl_zoo3 calls it
    """

    def sample(trial: optuna.Trial, *_: Any) -> dict[str, Any]:
        return to_settings(
            {
                name: (
                    trial.suggest_float(name, *choices, log=True)
                    if isinstance(choices, tuple)
                    else trial.suggest_categorical(name, choices)
                )
                for name, choices in space.items()
            }
        )

    return sample


class TrialExperimentManager(ExperimentManager):
    """
    rl_zoo3's manager, with the settings here (another algorithm or environment has rl_zoo3's own), and ``eval_env_kwargs`` in
    them. A search is judged on the training problems, so that the test problems stay unseen.

    :param args: of the command line
    :param algo: its name
    :param env_id: a registered id
    :param others: as of ``ExperimentManager``
    :param kwargs: as of ``ExperimentManager``
    :raises ValueError: if an algorithm of this package has no settings for the environment
    """

    def __init__(self, args: argparse.Namespace, algo: str, env_id: str, *others: Any, **kwargs: Any):
        super().__init__(args, algo, env_id, *others, **kwargs)
        if kwargs.get("config") is None and (HYPERPARAMS / f"{algo}.yml").exists():
            try:
                load_settings(env_id, algo)
                self.config = str(HYPERPARAMS / f"{algo}.yml")
                _search(algo)
            except ValueError as error:
                if algo in ALGORITHMS:
                    raise ValueError(f"{error}. Others: --conf-file my_settings.yml") from None

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """:return: the settings as they are written, and what of them is saved beside the model"""
        settings, saved = super().read_hyperparameters()
        env_kwargs = settings.get("env_kwargs") or self.env_kwargs
        eval_env_kwargs = {**env_kwargs, **(settings.pop("eval_env_kwargs", None) or {})}
        if self.optimize_hyperparameters:
            eval_env_kwargs = env_kwargs
        if self._eval_env_kwargs_args is None:
            self.eval_env_kwargs = eval_env_kwargs
        return settings, {**saved, "env_kwargs": env_kwargs, "eval_env_kwargs": self.eval_env_kwargs}

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        return super()._preprocess_hyperparams(parse_settings(hyperparams))

    @staticmethod
    def _preprocess_schedules(hyperparams: dict[str, Any]) -> dict[str, Any]:
        return hyperparams  # parse_settings has done it

    def hyperparameters_optimization(self) -> None:
        """Search. What is drawn is read as a file's settings are, and stands beside the file's other ``policy_kwargs``."""
        sample, fixed = HYPERPARAMS_SAMPLER[self.algo], {"policy_kwargs": self._hyperparams.get("policy_kwargs")}
        HYPERPARAMS_SAMPLER[self.algo] = lambda *args: parse_settings({**fixed, **sample(*args)})
        try:
            super().hyperparameters_optimization()
        finally:
            HYPERPARAMS_SAMPLER[self.algo] = sample


def _make_test_env(env_id: str, **kwargs: Any) -> VecEnv:
    """rl_zoo3's, on the problems that the model was evaluated on, unless ``--env-kwargs`` says otherwise."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--env")
    parser.add_argument("--env-kwargs", nargs="+", action=StoreDict, default={})
    args, _ = parser.parse_known_args()  # in ``kwargs`` they stand with those of training
    evaluated = kwargs["hyperparams"].get("eval_env_kwargs", kwargs["env_kwargs"])
    kwargs["env_kwargs"] = {**evaluated, **args.env_kwargs}
    return create_test_env(env_id, **kwargs)


def record() -> None:
    """Command ``record``."""
    parser = argparse.ArgumentParser(description="Write an animated picture of one trial of a saved model.")
    parser.add_argument("--algo", choices=list(ALGOS), required=True)
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("-f", "--folder", help="log folder")
    parser.add_argument("--exp-id", type=int, default=0, help="number of the run; by default the latest")
    parser.add_argument("--load-best", action="store_true", help="the best model instead of the last")
    parser.add_argument("--seed", type=int, default=0, help="of the trial")
    parser.add_argument("--env-kwargs", nargs="+", action=StoreDict, default={}, help="e.g. split:\"'train'\"")
    parser.add_argument("-o", "--output", type=Path, help="where to write; by default trial.gif beside the model")
    args = parser.parse_args()

    _, model_path, log_path = get_model_path(args.exp_id, args.folder, args.algo, args.env, args.load_best)
    settings, _ = get_saved_hyperparams(os.path.join(log_path, args.env))
    if wrapped := [key for key in ("normalize", "frame_stack", "env_wrapper", "vec_env_wrapper") if settings.get(key)]:
        raise SystemExit(f"record takes models that see the trials as they are, but this one was trained with {wrapped}")
    env_kwargs = {**settings.get("eval_env_kwargs", {}), **args.env_kwargs}
    output = args.output or Path(log_path) / "trial.gif"
    model = ALGOS[args.algo].load(model_path, device="cpu")
    record_trial(model, gym.make(args.env, render_mode="rgb_array", **env_kwargs), output, seed=args.seed)
    print(f"Wrote {output}")


def _save_figures(command: str) -> None:
    """What ``plt.show`` would show, as files beside what it was made from."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-a", "--algo", "--algos", nargs="+")
    parser.add_argument("-e", "--env", nargs="+")
    parser.add_argument("-f", "--exp-folder", "--exp-folders", nargs="+")
    args, _ = parser.parse_known_args()
    for number in plt.get_fignums():
        figure = plt.figure(number)
        label = str(figure.get_label())  # all_plots makes one for each environment, and names it there
        if not any(axes.lines for axes in figure.axes):
            print(f"{label} is empty: fewer trials than --episode-window, or fewer than two evaluations")
        words = [command, *args.algo, *(args.env if command == "plot_train" else []), label]
        path = Path(args.exp_folder[0]) / (re.sub(r"[^\w.-]+", "_", " ".join(words)) + ".png")
        figure.savefig(path, dpi=150)
        print(f"Wrote {path}")


def _with_files(plot: Callable[[], None]) -> Callable[[], None]:
    """The plot, which leaves files too."""

    def plot_and_save() -> None:
        show = plt.show

        def save_and_show() -> None:
            _save_figures(plot.__name__)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # there may be no screen
                show()

        plt.show = save_and_show  # type: ignore[assignment]
        try:
            plot()
        finally:
            plt.show = show
            plt.close("all")

    return plot_and_save


def _search(algo: str) -> None:
    HYPERPARAMS_SAMPLER[algo], HYPERPARAMS_CONVERTER[algo] = make_sampler(SPACES[algo]), to_settings


def register() -> None:
    """Make the algorithms and the manager known to rl_zoo3, in the way that its documentation has for algorithms of others."""
    for name, algorithm in ALGORITHMS.items():
        ALGOS[name] = algorithm
        _search(name)
    rl_zoo3.train.ExperimentManager = TrialExperimentManager  # type: ignore[misc]
    rl_zoo3.enjoy.create_test_env = _make_test_env  # type: ignore[assignment]


COMMANDS: dict[str, Callable[[], None]] = {
    "train": rl_zoo3.train.train,
    "enjoy": rl_zoo3.enjoy.enjoy,
    "record": record,
    "plot_train": _with_files(plot_train),
    "all_plots": _with_files(all_plots),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="sb3_dream.zoo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    command = parser.parse_args(sys.argv[1:2]).command
    register()
    sys.argv[:2] = [f"{sys.argv[0]} {command}"]
    sys.argv[1:1] = ["-f", "logs"]  # where train writes; a later one counts
    COMMANDS[command]()


if __name__ == "__main__":
    main()
