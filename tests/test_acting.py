"""How DREAM acts: recurrent, ε-greedy in each environment by itself, from the right z, and blind to the problem ID."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_dream import DREAM
from sb3_dream.dream.policies import ActingState

FAR = 10**9  # steps until something happens that must not happen


def shaken(model: DREAM) -> DREAM:
    """The model with weights large enough that everything in its memory shows in its Q-values."""
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * th.randn(parameter.shape, generator=generator))
    return model


def acted(n_steps: int = 1500, n_envs: int = 4, env_kwargs: dict | None = None, **kwargs: Any) -> DREAM:
    """A shaken model that has collected with its own ε-greedy policy, without warm-up and without learning."""
    env = make_vec_env("MetaMap-v0", n_envs=n_envs, seed=0, env_kwargs=env_kwargs)
    arguments = {"learning_starts": 0, "gradient_steps": 0, "exploration_fraction": 1e-9, "buffer_size": 20_000, **kwargs}
    return shaken(DREAM("MlpPolicy", env, seed=0, device="cpu", **arguments)).learn(n_steps)


def stored_rows(model: DREAM) -> list[dict[str, np.ndarray]]:
    """The observations that were acted on, step by step, each (n_envs, *shape)."""
    buffer = model.replay_buffer
    assert buffer is not None
    assert not buffer.full
    return [{key: rows[t] for key, rows in buffer.observations.items()} for t in range(buffer.n_rows)]


def replay(model: DREAM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What predict does on the stored observations; what was done; and whether it was exploring. Each (steps, n_envs)."""
    assert model.replay_buffer is not None
    state, greedy, exploring = None, [], []
    for observation in stored_rows(model):
        actions, state = model.predict(observation, state=state, deterministic=True)
        greedy.append(actions)
        exploring.append(observation["exploring"][:, 0] == 1)
    return np.array(greedy), model.replay_buffer.actions[: len(greedy), :, 0], np.array(exploring)


# ---- no problem ID at test time ------------------------------------------------------------------------------------


def test_actions_depend_on_what_was_observed_and_not_on_the_problem_id() -> None:
    """The promise of meta-testing. Two problems that have looked the same so far must be acted in the same, even in a
    training environment whose info shows the ID, and after the model has seen the ID in training."""
    model = acted(exploration_initial_eps=0.3, exploration_final_eps=0.3)
    env = make_vec_env("MetaMap-v0", n_envs=24, seed=0)
    env.set_options([{"problem_id": problem_id, "instructions": [1]} for problem_id in range(24)])
    observations: Any = env.reset()
    model._problem_ids = list(range(24))
    histories: list[bytes] = [b""] * 24
    answers: dict[bytes, set[int]] = {}
    running, state = np.ones(24, dtype=bool), None
    while running.any():
        greedy, state = model.predict(observations, state=state, deterministic=True)
        # from the middle, some ride one bus, and see where it goes
        for index in np.flatnonzero(running):
            seen = b"".join(observations[key][index].tobytes() for key in sorted(observations))
            histories[index] += seen
            answers.setdefault(histories[index], set()).add(int(greedy[index]))
        scripted = 1 if observations["episode_start"][0, 0] else 5
        observations, _, dones, _ = env.step(np.where(observations["exploring"][:, 0] == 1, scripted, greedy))
        running &= ~dones
    shared = [history for history in answers if sum(h.startswith(history) for h in histories) > 1]
    assert len(shared) > 20, "the test needs problems that look the same for a while"
    assert len(set(histories)) >= 4, "and some that do not"
    assert all(len(actions) == 1 for actions in answers.values())


def test_predict_acts_from_the_decoded_trajectory() -> None:
    """At test time z is g(τ): with z from anywhere else, what was explored would be lost. It must also matter."""
    model = acted(n_steps=800)
    given: list[th.Tensor | None] = []
    act = model.policy.act

    def spy(observation: dict[str, th.Tensor], state: ActingState, z: th.Tensor | None = None) -> Any:
        given.append(z)
        return act(observation, state, z)

    model.policy.act = spy  # type: ignore[method-assign]
    replay(model)
    assert given == [None] * len(stored_rows(model)), "predict was told a z"
    del model.policy.act

    state, differs = None, 0
    for t, observation in enumerate(stored_rows(model)):
        q_values, next_state, _ = model.policy.predict_q_values(observation, state)
        if state is not None:
            other_state = (*state[:-1], state[-1] + 3.0)
            other, *_ = model.policy.predict_q_values(observation, other_state)
            executing = observation["exploring"][:, 0] == 0
            np.testing.assert_array_equal(other[~executing], q_values[~executing])
            differs += int((other[executing] != q_values[executing]).any(axis=1).sum())
            assert (other[executing] != q_values[executing]).any(axis=1).all(), t
        state = next_state
    assert differs > 50


@pytest.mark.parametrize("policy_kwargs", [{}, {"n_lstm_layers": 2}, {"enable_exploration_lstm": False}], ids=str)
def test_stepwise_and_batched_trajectory_decoder_agree(policy_kwargs: dict[str, Any]) -> None:
    """z while acting and z while learning must be the same function of the trajectory, the last observation included."""
    model = acted(n_steps=1500, env_kwargs={"n_execution_episodes": 2}, policy_kwargs=policy_kwargs)
    buffer = model.replay_buffer
    assert buffer is not None
    guesses: list[np.ndarray] = []  # of z, after each step
    state: Any = None
    for observation in stored_rows(model):
        _, state = model.predict(observation, state=state, deterministic=True)
        guesses.append(state[-1][0])
    table = buffer._table[buffer._whole()]
    batch = buffer.batch(table, np.ones(len(table), dtype=int))
    with th.no_grad():
        steps = model.policy.steps(batch.exploration.observations, batch.exploration.prefix_mask)
        g, _ = model.policy.trajectory_decoder(steps)
    assert len(table) > 20
    for b, trial in enumerate(table):
        start, env, n = int(trial["start"]), int(trial["env"]), int(batch.exploration.lengths[b])
        for t in range(n + 1):
            np.testing.assert_allclose(guesses[start + t][env], g[t, b], rtol=1e-4, atol=1e-5)
        # and it stays what it is through both execution episodes
        for t in range(n + 1, int(trial["ends"][-1])):
            np.testing.assert_array_equal(guesses[start + t][env], guesses[start + n][env])


# ---- recurrent, in RecurrentPPO's way --------------------------------------------------------------------------------


def test_the_state_that_predict_returns_matters(model: DREAM) -> None:
    """If the state were ignored, the agent could not remember what it has explored."""
    shaken(model)
    rows = stored_rows(model)[:6]
    state: Any = None
    for observation in rows:
        q_values, before, _ = model.policy.predict_q_values(observation, state)
        state = before
    forgetful, *_ = model.policy.predict_q_values(rows[-1], None)
    assert not np.allclose(q_values, forgetful)


def test_episode_start_forgets_for_that_trial_alone(model: DREAM) -> None:
    """evaluate_policy says with episode_start that a new trial begins: nothing of the last one may be left, and the
    other environments must not notice."""
    shaken(model)
    state: Any = None
    for observation in stored_rows(model)[:6]:
        _, state = model.predict(observation, state=state, deterministic=True)
    observation = stored_rows(model)[6]
    starts = np.array([True, False, False, True])
    reset, reset_state, _ = model.policy.predict_q_values(observation, state, starts)
    kept, kept_state, _ = model.policy.predict_q_values(observation, state, np.zeros(4, dtype=bool))
    fresh, fresh_state, _ = model.policy.predict_q_values(observation, None)
    np.testing.assert_array_equal(reset[~starts], kept[~starts])
    np.testing.assert_allclose(reset[starts], fresh[starts], rtol=1e-6)
    assert not np.allclose(kept[starts], fresh[starts])
    for part, fresh_part, kept_part in zip(reset_state, fresh_state, kept_state, strict=True):
        np.testing.assert_allclose(part[:, starts], fresh_part[:, starts], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(part[:, ~starts], kept_part[:, ~starts])


def test_a_new_trial_needs_no_episode_start(model: DREAM) -> None:
    """The observation says that a trial begins. A user who forgets episode_start (as many do) still gets the right actions
    from the second trial on."""
    shaken(model)
    assert model.replay_buffer is not None
    table = model.replay_buffer._table[: model.replay_buffer._n_table]
    trial = next(row for row in table if row["start"] > 0)
    rows = stored_rows(model)[int(trial["start"]) : int(trial["start"] + trial["ends"][-1])]
    env, state = int(trial["env"]), None
    for observation in stored_rows(model)[: int(trial["start"])]:
        _, state = model.predict(observation, state=state, deterministic=True)
    fresh: Any = None
    for observation in rows:
        q_values, state, _ = model.policy.predict_q_values(observation, state)
        q_fresh, fresh, _ = model.policy.predict_q_values(observation, fresh)
        np.testing.assert_allclose(q_values[env], q_fresh[env], rtol=1e-4, atol=1e-5)


def test_one_observation_is_a_batch_of_one(model: DREAM) -> None:
    """predict on a plain environment and on a VecEnv must act alike."""
    shaken(model)
    single_state: Any = None
    batch_state: Any = None
    for observation in stored_rows(model)[:40]:
        single, single_state = model.predict(
            {key: value[0] for key, value in observation.items()}, state=single_state, deterministic=True
        )
        batch, batch_state = model.predict(
            {key: value[:1] for key, value in observation.items()}, state=batch_state, deterministic=True
        )
        assert np.shape(single) == ()
        assert batch.shape == (1,)
        assert model.action_space.contains(single)
        assert single == batch[0]
        for one, other in zip(single_state, batch_state, strict=True):
            np.testing.assert_array_equal(one, other)
        random, _ = model.predict({key: value[0] for key, value in observation.items()}, state=single_state)
        assert np.shape(random) == ()
        assert model.action_space.contains(random)


def test_a_state_of_another_batch_is_an_error(model: DREAM) -> None:
    """Broadcasting it would give every environment the memory of one."""
    observation = stored_rows(model)[0]
    _, state = model.predict(observation)
    with pytest.raises(ValueError, match="state is of 4 trials, but the observation of 2"):
        model.predict({key: value[:2] for key, value in observation.items()}, state=state)


def test_other_environments_do_not_change_an_environments_actions() -> None:
    """Trials of different phases run side by side; what the others do must not leak in through masks or batching."""
    model = acted(n_steps=800)
    rows, together = stored_rows(model), replay(model)[0]
    for env in range(4):
        state: Any = None
        for t, observation in enumerate(rows):
            alone, state = model.predict(
                {k: v[env : env + 1] for k, v in observation.items()}, state=state, deterministic=True
            )
            assert alone[0] == together[t, env]


# ---- ε-greedy ----------------------------------------------------------------------------------------------------------


def test_collecting_without_epsilon_is_predict() -> None:
    """Acting in training and at test time are the same function: states are kept for each environment, through trials of
    different lengths and through all phases."""
    model = acted(problem_id_probability=0.0, exploration_initial_eps=0.0, exploration_final_eps=0.0)
    greedy, done, exploring = replay(model)
    np.testing.assert_array_equal(greedy, done)
    assert exploring.any()
    assert (~exploring).any()
    assert len(np.unique(done)) > 1


def test_each_phase_has_its_own_epsilon() -> None:
    """The share of random actions is ε of the phase. The network runs on random actions too: if its state were not advanced
    (as in SB3's DQN), the greedy actions after them would come from a memory with holes."""
    model = acted(
        n_steps=6_000,
        problem_id_probability=0.0,
        exploration_initial_eps=1.0,
        exploration_final_eps=0.2,
        explorer_final_eps=0.6,
        explorer_fraction=1e-9,
    )
    greedy, done, exploring = replay(model)
    same = (greedy == done)[1:]
    for phase, epsilon in ((exploring[1:], 0.6), (~exploring[1:], 0.2)):
        expected = 1 - epsilon * (1 - 1 / 7)
        error = np.sqrt(expected * (1 - expected) / phase.sum())
        assert same[phase].mean() == pytest.approx(expected, abs=4 * error), epsilon


def test_every_environment_tosses_its_own_coin() -> None:
    """SB3's DQN tosses one for all: with many environments, whole time steps would be random and others wholly greedy."""
    model = acted(n_steps=8_000, n_envs=16, problem_id_probability=0.0, exploration_initial_eps=0.5, exploration_final_eps=0.5)
    greedy, done, _ = replay(model)
    n_random = (greedy != done).sum(axis=1)
    share = (greedy != done).mean()
    assert share == pytest.approx(0.5 * 6 / 7, abs=0.05)
    assert n_random.var() < 2 * 16 * share * (1 - share)  # one coin: about 16 times the binomial variance


def test_warming_up_is_random() -> None:
    """Until learning_starts, all actions are random, as SB3's users expect, whatever ε says."""
    model = acted(
        n_steps=4000, learning_starts=FAR, problem_id_probability=0, exploration_initial_eps=0, exploration_final_eps=0
    )
    greedy, done, _ = replay(model)
    assert (greedy == done).mean() == pytest.approx(1 / 7, abs=0.03)
    assert np.bincount(done.ravel(), minlength=7) / done.size == pytest.approx([1 / 7] * 7, abs=0.03)


def test_random_actions_are_held_within_an_episode() -> None:
    """What is far away is not found by one random step at a time. A hold of n steps, up to 4, has a probability ∝ 1/n, and
    ends with the episode: else the beginning of the next one would be decided by the last."""
    model = acted(n_steps=16_000, n_envs=16, learning_starts=FAR, exploration_duration=4)
    _, done, _ = replay(model)
    starts = np.array([observation["episode_start"][:, 0] == 1 for observation in stored_rows(model)])[1:]
    same = done[1:] == done[:-1]
    begins = 25 / 12 / 4  # Σ 1/n / Σ 1: one over the mean duration
    assert same[~starts].mean() == pytest.approx(1 - begins * 6 / 7, abs=0.02)
    assert same[starts].mean() == pytest.approx(1 / 7, abs=0.04)
    counts = np.bincount(done.ravel(), minlength=7)[:6]  # the action that ends the episode is not held
    assert counts / counts.sum() == pytest.approx([1 / 6] * 6, abs=0.03)


def test_without_epsilon_nothing_is_held() -> None:
    """Holding is for random actions: a greedy one that were held would act on what was seen steps ago."""
    model = acted(exploration_initial_eps=0, exploration_final_eps=0, exploration_duration=8, problem_id_probability=0.0)
    greedy, done, _ = replay(model)
    assert (greedy == done).all()


@pytest.mark.parametrize("duration", [0, 1.5])
def test_a_duration_that_is_none_is_refused(duration: float) -> None:
    """The error names the argument."""
    with pytest.raises(ValueError, match="exploration_duration must be a whole number of at least 1"):
        DREAM("MlpPolicy", "MetaMap-v0", exploration_duration=duration)  # type: ignore[arg-type]


def test_predict_is_epsilon_greedy_unless_deterministic() -> None:
    """As DQN's predict; and a random action must not keep the state from advancing."""
    model = acted(n_steps=400)
    model.explorer_rate, model.exploration_rate = 0.75, 0.25
    observation = {key: np.repeat(value[:1], 5000, axis=0) for key, value in stored_rows(model)[0].items()}
    greedy, greedy_state = model.predict(observation, deterministic=True)
    for exploring, epsilon in ((1.0, 0.75), (0.0, 0.25)):
        observation["exploring"][:] = exploring
        greedy, greedy_state = model.predict(observation, deterministic=True)
        actions, state = model.predict(observation, deterministic=False)
        assert (actions != greedy).mean() == pytest.approx(epsilon * 6 / 7, abs=0.03)
        for part, greedy_part in zip(state, greedy_state, strict=True):  # type: ignore[arg-type]
            np.testing.assert_array_equal(part, greedy_part)


def test_epsilon_falls_as_its_schedules_say() -> None:
    """Each phase has its schedule: exploration usually wants to fall far more slowly."""
    seen: list[tuple[float, float, float]] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            assert isinstance(self.model, DREAM)
            progress = min((self.num_timesteps - self.model.n_envs) / 2000, 1.0)  # ε is set after the step
            seen.append((progress, self.model.exploration_rate, self.model.explorer_rate))
            return True

    env = make_vec_env("MetaMap-v0", n_envs=4, seed=0)
    epsilons: dict[str, Any] = {"exploration_initial_eps": 0.9, "exploration_final_eps": 0.1, "explorer_final_eps": 0.3}
    model = DREAM(
        "MlpPolicy", env, seed=0, gradient_steps=0, exploration_fraction=0.5, explorer_fraction=1.0, device="cpu", **epsilons
    )
    model.learn(2000, callback=Watch())
    for progress, execution, exploration in seen[1:]:
        assert execution == pytest.approx(max(0.1, 0.9 - 0.8 * progress / 0.5))
        assert exploration == pytest.approx(0.9 - 0.6 * progress)


# ---- z while training: Algorithm 1, lines 8-10 ---------------------------------------------------------------------------


def z_of_each_execution_episode(probability: float, **kwargs: Any) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """For each execution episode that was played to its end while training: the z of each of its steps, g(τ), and the ID."""
    env = make_vec_env("MetaMap-v0", n_envs=4, seed=0, env_kwargs={"n_execution_episodes": 3})
    model = shaken(
        DREAM(
            "MlpPolicy",
            env,
            seed=0,
            learning_starts=0,
            gradient_steps=0,
            device="cpu",
            problem_id_probability=probability,
            **kwargs,
        )
    )
    act = model.policy.act
    running: list[list[Any]] = [[] for _ in range(4)]
    played: list[tuple[np.ndarray, np.ndarray, int]] = []

    def spy(observation: dict[str, th.Tensor], state: ActingState, z: th.Tensor | None = None) -> Any:
        result = act(observation, state, z)
        assert z is not None
        for index in range(4):
            if observation["exploring"][index, 0] == 1:
                running[index] = []
                continue
            if observation["episode_start"][index, 0] == 1:
                running[index] = [[], state.z[0, index].numpy().copy(), model._problem_ids[index]]
                played.append(running[index])  # type: ignore[arg-type]
            running[index][0].append(z[index].numpy().copy())
        return result

    model.policy.act = spy  # type: ignore[method-assign]
    model.learn(6000)
    embeddings = model.policy.problem_encoder(th.arange(24)).detach().numpy()
    return [(np.array(zs), g, embeddings[problem_id]) for zs, g, problem_id in played]


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_z_comes_from_the_problem_id_with_its_probability(probability: float) -> None:
    """Acting from the ID shows what is to be known; acting from the trajectory makes the data fit test time. Always one of
    them (unless asked for) would starve the other. z is drawn once for each execution episode and stays."""
    episodes = z_of_each_execution_episode(probability, problem_std=0.0)
    assert len(episodes) > 200
    assert any(len(zs) > 3 for zs, *_ in episodes)
    from_id = []
    for zs, g, f in episodes:
        assert (zs == zs[0]).all(), "z changed within an execution episode"
        is_f, is_g = np.allclose(zs[0], f, atol=1e-5), np.allclose(zs[0], g, atol=1e-6)
        assert is_f != is_g, "z must be f(μ) or g(τ)"
        from_id.append(is_f)
    margin = 4 * np.sqrt(probability * (1 - probability) / len(episodes))
    assert np.mean(from_id) == pytest.approx(probability, abs=margin)
    if probability == 0.5:
        # a coin for each episode, not for each trial: else it would be the same three times in a row
        changes = np.mean(np.array(from_id[1:]) != np.array(from_id[:-1]))
        assert changes > 0.3


def test_z_from_the_problem_id_has_noise_rho() -> None:
    """z ~ N(f(μ), ρ²I), drawn anew for each execution episode: without noise nothing limits what z can carry."""
    episodes = z_of_each_execution_episode(1.0, problem_std=0.25)
    noise = np.array([zs[0] - f for zs, _, f in episodes])
    assert noise.std() == pytest.approx(0.25, rel=0.05)
    assert noise.mean() == pytest.approx(0.0, abs=0.02)
    assert len(np.unique(noise[:, 0])) == len(noise)


# ---- targets ---------------------------------------------------------------------------------------------------------------

NETWORKS = ("explorer", "executor", "problem_encoder", "trajectory_decoder")


def weights(model: DREAM, suffix: str = "") -> dict[str, th.Tensor]:
    """All parameters of each network, or of each target, as one vector."""
    return {
        name: th.cat([p.detach().flatten() for p in getattr(model.policy, name + suffix).parameters()]) for name in NETWORKS
    }


def learner(callback: BaseCallback | None = None, **kwargs: Any) -> DREAM:
    """A short real run."""
    env = make_vec_env("MetaBandit-v0", n_envs=4, seed=0, env_kwargs={"n_arms": 4})
    model = DREAM("MlpPolicy", env, seed=0, learning_starts=100, train_freq=5, batch_size=8, device="cpu", **kwargs)
    return model.learn(400, callback=callback)


def test_hard_syncs_copy_all_four_networks() -> None:
    """With tau = 1 and a sync at each step, targets are what the online networks were at the end of the rollout."""

    class Compare(BaseCallback):
        n_compared = 0

        def _on_rollout_end(self) -> None:
            assert isinstance(self.model, DREAM)
            online, target = weights(self.model), weights(self.model, "_target")
            for name in NETWORKS:
                assert th.equal(online[name], target[name]), name
            self.n_compared += self.model._n_updates > 1

        def _on_step(self) -> bool:
            return True

    callback = Compare()
    model = learner(callback, tau=1.0, target_update_interval=1)
    assert callback.n_compared > 5
    for name, online in weights(model).items():  # a last update came after the last sync
        assert not th.equal(online, weights(model, "_target")[name]), name


def test_targets_stay_until_their_interval_is_over() -> None:
    """A target that moved by itself would be chased in circles. All four online networks learn meanwhile."""
    model = learner(target_update_interval=FAR)
    fresh = DREAM("MlpPolicy", make_vec_env("MetaBandit-v0", n_envs=4, seed=0, env_kwargs={"n_arms": 4}), seed=0, device="cpu")
    for name in NETWORKS:
        assert th.equal(weights(model, "_target")[name], weights(fresh, "_target")[name]), name
        assert not th.equal(weights(model)[name], weights(fresh)[name]), name


def test_target_update_interval_counts_environment_steps() -> None:
    """As DQN's: 40 steps are 10 calls of 4 environments."""
    moved: list[int] = []

    class Watch(BaseCallback):
        last: th.Tensor | None = None

        def _on_step(self) -> bool:
            assert isinstance(self.model, DREAM)
            target = weights(self.model, "_target")["explorer"]
            if self.last is not None and not th.equal(target, self.last):
                moved.append(self.num_timesteps - 4)  # the sync comes after the callback
            self.last = target
            return True

    learner(Watch(), tau=0.5, target_update_interval=40)
    assert moved == list(range(moved[0], 400, 40))
    assert len(moved) > 3
    assert moved[0] % 40 == 0
