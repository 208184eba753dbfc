"""Callbacks."""

from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure, TensorBoardOutputFormat

from sb3_dream.common.plots import plot_trial, plot_z_space
from sb3_dream.common.records import play_trial


class ExplainCallback(BaseCallback):
    """
    Show on TensorBoard, under Images, what a model explores and why, as training goes on: ``explain/trial`` is ``plot_trial``
    of one greedy trial, and ``explain/z_space`` is ``plot_z_space`` of it and others. The trials are the same each time, and
    training goes on as it would without them.

    :param env: trials of their own, not those that are trained on; with ``render_mode="rgb_array"`` there are frames too
    :param explain_freq: environment steps, over all environments, between two explanations
    :param n_trials: how many trials to draw in z-space
    :param seed: of the trials
    :param verbose: 1 says so each time
    :raises ValueError: if ``explain_freq`` or ``n_trials`` is below 1; and when training starts, for a model that has no
        ``explain`` or does not log to TensorBoard, or an ``env`` that is not made of trials that the model can play
    """

    def __init__(self, env: gym.Env, explain_freq: int = 50_000, n_trials: int = 6, seed: int = 0, verbose: int = 0):
        super().__init__(verbose)
        for name, value in {"explain_freq": explain_freq, "n_trials": n_trials}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.env = env
        self.explain_freq = explain_freq
        self.n_trials = n_trials
        self.seed = seed
        self._last = 0

    def _on_training_start(self) -> None:
        if not hasattr(self.model, "explain"):
            raise ValueError(f"ExplainCallback is for models with a method explain, such as DREAM, not {self.model}")
        if not any(isinstance(output, TensorBoardOutputFormat) for output in self.logger.output_formats):
            raise ValueError("ExplainCallback draws on TensorBoard only: make the model with tensorboard_log='runs'")
        play_trial(self.model, self.env, self.seed)  # an env that does not fit says so now, and not in the midst of training
        self._last = self.num_timesteps

    def _on_step(self) -> bool:
        if self.num_timesteps - self._last >= self.explain_freq:
            self._last = self.num_timesteps
            self._explain()
        return True

    def _explain(self) -> None:
        model: Any = self.model
        trials = [model.explain(self.env, seed=self.seed + number) for number in range(self.n_trials)]
        for name, figure in {"trial": plot_trial(trials[0]), "z_space": plot_z_space(trials)}.items():
            self.logger.record(f"explain/{name}", Figure(figure, close=False), exclude=("stdout", "log", "json", "csv"))
        self.logger.dump(self.num_timesteps)
        if self.verbose >= 1:
            print(f"Explained {self.n_trials} trials after {self.num_timesteps} steps")
