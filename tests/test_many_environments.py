"""As many environments as a big machine has: where they run makes no difference."""

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

N_ENVS = 64


@pytest.mark.parametrize("env_id", ["MetaMap-v0", "MetaDistractingBus-v0", "MetaBandit-v0"])
def test_subprocesses_give_the_same_trials(env_id: str) -> None:
    """A curve from a workstation with SubprocVecEnv must be one that a laptop with DummyVecEnv can repeat: problems,
    instructions, observations and rewards, over several trials in each environment."""
    kwargs: dict[str, Any] = {"n_envs": N_ENVS, "seed": 11, "env_kwargs": {"n_execution_episodes": 2}}
    here: VecEnv = make_vec_env(env_id, **kwargs)
    # forked: 64 fresh interpreters would import torch 64 times
    there: VecEnv = make_vec_env(env_id, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}, **kwargs)
    try:
        first: Any = here.reset()
        second: Any = there.reset()
        actions = np.random.default_rng(0)
        problems: list[set[int]] = [set() for _ in range(N_ENVS)]
        n_trials = 0
        for _ in range(120):
            for key in first:
                np.testing.assert_array_equal(first[key], second[key], err_msg=key)
            chosen = actions.integers(here.action_space.n, size=N_ENVS)  # type: ignore[attr-defined]
            first, rewards, dones, infos = here.step(chosen)
            second, their_rewards, their_dones, their_infos = there.step(chosen)
            np.testing.assert_array_equal(rewards, their_rewards.astype(np.float32))  # SB3 keeps them as float64 there
            np.testing.assert_array_equal(dones, their_dones)
            assert [info["problem_id"] for info in infos] == [info["problem_id"] for info in their_infos]
            for env, info in enumerate(infos):
                problems[env].add(info["problem_id"])
            n_trials += int(dones.sum())
        assert n_trials > N_ENVS
        assert np.mean([len(seen) > 1 for seen in problems]) > 0.5, "each environment meets problem after problem"
    finally:
        there.close()
