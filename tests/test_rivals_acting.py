"""How IMPORT and VariBAD act: from what was observed, blind to the problem ID at test time, over whole trials."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dream import IMPORT, VariBAD, evaluate_problems
from sb3_dream.common.belief import BeliefState
from tests.rivals import collected

RIVALS = pytest.mark.parametrize("cls", [IMPORT, VariBAD])


@RIVALS
def test_actions_depend_on_what_was_observed_and_not_on_the_problem_id(cls: Any) -> None:
    """Problems that have looked the same so far must be acted in the same, even where info shows the ID, and after the model
    has seen it in training."""
    model = collected(cls)
    env = make_vec_env("MetaMap-v0", n_envs=24, seed=0)
    env.set_options([{"problem_id": problem_id, "instructions": [1]} for problem_id in range(24)])
    observations: Any = env.reset()
    model._problem_ids, model._from_id = list(range(24)), np.ones(24, dtype=bool)
    histories: list[bytes] = [b""] * 24
    answers: dict[bytes, set[int]] = {}
    running, state = np.ones(24, dtype=bool), None
    while running.any():
        greedy, state = model.predict(observations, state=state, deterministic=True)
        for index in np.flatnonzero(running):
            histories[index] += b"".join(observations[key][index].tobytes() for key in sorted(observations))
            answers.setdefault(histories[index], set()).add(int(greedy[index]))
        scripted = 1 if observations["episode_start"][0, 0] else 5  # up, and ride one bus
        observations, _, dones, _ = env.step(np.where(observations["exploring"][:, 0] == 1, scripted, greedy))
        running &= ~dones
    shared = [history for history in answers if sum(h.startswith(history) for h in histories) > 1]
    assert len(shared) > 10, "the test needs problems that look the same for a while"
    assert len(set(histories)) >= 4, "and some that do not"
    assert all(len(actions) == 1 for actions in answers.values())


@RIVALS
def test_the_belief_lasts_through_the_whole_trial(cls: Any) -> None:
    """What was seen while exploring must reach the Q-values of the execution episodes; and acting and learning must have the
    same belief at every step."""
    model = collected(cls, env_kwargs={"n_execution_episodes": 2})
    model.rng = np.random.default_rng(0)
    trials = model._sample(6)
    trials = trials[0] if isinstance(trials, tuple) else trials
    with th.no_grad():
        belief, _ = model.policy.belief(model.policy.steps(trials.observations, trials.action_mask))
    state, n_steps = None, int(trials.lengths.max())
    differs = 0
    for t in range(n_steps):
        observation = {key: value[t].numpy() for key, value in trials.observations.items()}
        q_values, next_state, _ = model.policy.predict_q_values(observation, state)
        if state is not None:
            forgetful, *_ = model.policy.predict_q_values(observation, None)
            executing = (observation["exploring"][:, 0] == 0) & (t < trials.lengths.numpy())
            differs += int((np.abs(forgetful - q_values)[executing].max(axis=1) > 1e-6).sum())
        state = next_state
        steps = model.policy.steps({key: value[t : t + 1] for key, value in trials.observations.items()})
        with th.no_grad():
            (expected,), _ = model.policy.q_net(steps, [belief[t]])
        valid = t < trials.lengths.numpy()
        np.testing.assert_allclose(q_values[valid], expected[0].numpy()[valid], rtol=1e-3, atol=1e-4)
    assert differs > 20


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_trial_is_acted_in_from_the_id_with_its_probability(probability: float) -> None:
    """Of its own problem, from its first step to its last; and z is f(μ) then, and the belief else."""
    model = collected(IMPORT, n_steps=0, n_envs=3, problem_id_probability=probability, learning_starts=0, gradient_steps=0)
    act, calls = model.policy.act, []

    def spy(observation: dict[str, th.Tensor], state: BeliefState, z: th.Tensor, use_z: th.Tensor) -> Any:
        wanted = model.policy.problem_encoder(th.as_tensor(model.env.get_attr("problem_id")))
        calls.append((th.equal(z, wanted), use_z[:, 0].tolist()))
        return act(observation, state, z, use_z)

    model.policy.act = spy
    model.learn(3000)
    assert all(right for right, _ in calls), "z is not that of the environment's problem"
    assert model.replay_buffer is not None
    used, table = np.array([flags for _, flags in calls]), model.replay_buffer._table[: model.replay_buffer._n_table]
    from_id = []
    for start, env, ends in zip(table["start"], table["env"], table["ends"], strict=True):
        flags = used[int(start) : int(start) + int(ends[-1]), env]
        assert len(set(flags.tolist())) == 1, "z changed its source within a trial"
        from_id.append(flags[0])
    assert len(from_id) > 50
    assert np.mean(from_id) == pytest.approx(probability, abs=4 * np.sqrt(probability * (1 - probability) / len(from_id)))


def test_collecting_from_the_belief_without_epsilon_is_predict() -> None:
    """Memory is kept for each environment while training too, and begins anew with each trial."""
    model = collected(
        IMPORT,
        n_steps=900,
        problem_id_probability=0.0,
        learning_starts=0,
        gradient_steps=0,
        exploration_initial_eps=0.0,
        exploration_final_eps=0.0,
    )
    buffer = model.replay_buffer
    starts, state = np.zeros((buffer.n_rows, 4), dtype=bool), None
    starts[0] = True
    for row in buffer._table[: buffer._n_table]:
        end = int(row["start"]) + int(row["ends"][-1])
        starts[end : end + 1, row["env"]] = True
    for t in range(buffer.n_rows):
        observation = {key: rows[t] for key, rows in buffer.observations.items()}
        actions, state = model.predict(observation, state=state, episode_start=starts[t], deterministic=True)
        np.testing.assert_array_equal(actions, buffer.actions[t, :, 0])


@RIVALS
def test_learning_moves_every_network_and_its_target(cls: Any) -> None:
    """A network that was left out of the optimizer or of the targets would stay as it was made, silently. VecNormalize goes
    along."""
    env = VecNormalize(make_vec_env("MetaMap-v0", n_envs=4, seed=0), norm_obs_keys=["previous_reward", "exploring"])
    arguments: dict[str, Any] = {"learning_starts": 200, "train_freq": 8, "batch_size": 8, "seed": 0, "device": "cpu"}
    model = cls("MlpPolicy", env, policy_kwargs={"net_arch": [8], "lstm_hidden_size": 4}, **arguments)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(1000)
    same = {name for name, value in model.policy.state_dict().items() if th.equal(value, before[name])}
    assert not same


def test_varibad_needs_no_problem_id() -> None:
    """It learns from trials that do not say it, and is evaluated in them."""
    env = make_vec_env("MetaBandit-v0", n_envs=4, seed=0, env_kwargs={"n_arms": 4, "training": False})
    model = VariBAD("MlpPolicy", env, learning_starts=100, train_freq=8, batch_size=8, seed=0, device="cpu").learn(400)
    assert model._n_updates > 5
    assert len(evaluate_problems(model, env).execution_returns) == 4
