"""TrialReplayBuffer against a naive recorder: whole trials come out as they went in, bit for bit, or not at all."""

import pickle
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dream import DREAM, EpisodeBatch, TrialBatch, TrialEnv, TrialReplayBuffer
from sb3_dream.envs import FAMILIES
from tests.random_families import FamilyPlan, RandomFamily, family_plans

FLAGS = {"exploring", "episode_start", "episode_end"}


@dataclass
class Step:
    """One step of one environment."""

    observation: dict[str, np.ndarray]
    action: int
    reward: float


@dataclass
class Trial:
    """A finished trial, as a naive recorder keeps it."""

    env: int
    first_row: int
    steps: list[Step]
    problem_id: Any

    def exploration(self) -> list[Step]:
        """The steps of all exploration episodes, those whose actions were ignored included."""
        return [step for step in self.steps if step.observation["exploring"][0] == 1]

    def execution(self, number: int) -> list[Step]:
        """The steps of execution episode 1 to N, with the one whose action was ignored."""
        executed = self.steps[len(self.exploration()) :]
        starts = [t for t, step in enumerate(executed) if step.observation["episode_start"][0] == 1] + [len(executed)]
        return executed[starts[number - 1] : starts[number]]


class Recorder:
    """Plays random actions in several trials side by side, fills a buffer, and writes everything down by itself."""

    def __init__(self, envs: list[TrialEnv], buffer: TrialReplayBuffer, seed: int):
        self.envs, self.buffer = envs, buffer
        self.rng = np.random.default_rng(seed)
        self.observations = [env.reset(seed=seed + index)[0] for index, env in enumerate(envs)]
        self.running: list[list[Step]] = [[] for _ in envs]
        self.trials: list[Trial] = []
        self.n_rows = 0

    def step(self) -> None:
        """One step of every environment, which begins a new trial by itself as a VecEnv does."""
        results: list[Any] = []
        before = self.observations
        actions = [int(self.rng.integers(env.action_space.n)) for env in self.envs]  # type: ignore[attr-defined]
        self.n_rows += 1
        for index, env in enumerate(self.envs):
            observation, reward, done, _, info = env.step(actions[index])
            kept = {key: np.array(value) for key, value in before[index].items()}
            self.running[index].append(Step(kept, actions[index], reward))
            if done:
                steps = self.running[index]
                self.trials.append(Trial(index, self.n_rows - len(steps), steps, np.array(info.get("problem_id"))))
                self.running[index] = []
                observation = env.reset()[0]
            results.append((observation, reward, done, info))
        self.observations = [result[0] for result in results]
        self.buffer.add(
            stack(before),
            stack(self.observations),
            np.array(actions),
            np.array([result[1] for result in results]),
            np.array([result[2] for result in results]),
            [result[3] for result in results],
        )

    def run(self, n_steps: int) -> None:
        """So many steps."""
        for _ in range(n_steps):
            self.step()

    def whole_trials(self) -> list[Trial]:
        """Those of which no step has been overwritten."""
        return [trial for trial in self.trials if trial.first_row >= self.n_rows - self.buffer.buffer_size]


def stack(observations: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """As a VecEnv does."""
    return {key: np.stack([np.asarray(each[key]) for each in observations]) for key in observations[0]}


def make_recorder(plan: FamilyPlan, n_envs: int, rows: int, n_sampled_executions: int = 1) -> Recorder:
    """Trials of the plan, and a buffer of so many rows for each."""
    envs = [plan.trials(index) for index in range(n_envs)]
    buffer = TrialReplayBuffer(
        rows * n_envs,
        envs[0].observation_space,
        envs[0].action_space,
        device="cpu",
        n_envs=n_envs,
        problem_space=envs[0].problem_space,
        n_execution_episodes=plan.n_execution_episodes,
        n_exploration_episodes=plan.n_exploration_episodes,
        n_sampled_executions=n_sampled_executions,
    )
    return Recorder(envs, buffer, plan.seed)


def assert_same(tensor: th.Tensor, expected: Any) -> None:
    """Bit for bit (NaN does not occur)."""
    assert np.array_equal(tensor.numpy(), np.asarray(expected)), (tensor, expected)


def assert_episode(batch: EpisodeBatch, b: int, steps: list[Step], is_last: bool) -> None:
    """Column b of the batch is these steps, its masks say where they end, and its padding repeats the last row."""
    n = len(steps) if is_last else len(steps) - 1  # the last step of any other episode only asks for the next one
    assert batch.lengths[b].item() == n
    between = [step.observation["episode_end"][0] == 1 for step in steps[:n]]
    if batch.between is None:
        assert not any(between)
    else:
        assert batch.between[:, b].tolist() == between + [False] * (len(batch.actions) - n)
    assert batch.mask[:, b].tolist() == [float(not each) for each in between] + [0.0] * (len(batch.actions) - n)
    assert batch.prefix_mask[:, b].tolist() == [1.0] * (n + 1) + [0.0] * (len(batch.actions) - n)
    assert batch.action_mask[:, b].tolist() == [1.0] * n + [0.0] * (len(batch.actions) - n + 1)
    assert batch.dones[:, b].tolist() == [float(t == n - 1) for t in range(len(batch.actions))]
    assert_same(batch.actions[:n, b], [step.action for step in steps[:n]])
    assert_same(batch.rewards[:n, b], np.array([step.reward for step in steps[:n]], np.float32))
    assert set(steps[0].observation) - FLAGS <= set(batch.observations)
    for key, rows in batch.observations.items():
        for t in range(len(rows)):
            assert_same(rows[t, b], steps[min(t, len(steps) - 1)].observation[key])


def assert_batch(batch: TrialBatch, trials: list[Trial], episodes: list[int], n_execution_episodes: int) -> None:
    """The batch is these trials."""
    assert batch.exploration.actions.dtype == batch.execution.lengths.dtype == th.int64
    assert len(batch.exploration.actions) == max(len(trial.exploration()) for trial in trials) - 1
    for b, (trial, episode) in enumerate(zip(trials, episodes, strict=True)):
        assert_episode(batch.exploration, b, trial.exploration(), is_last=False)
        assert_episode(batch.execution, b, trial.execution(episode), is_last=episode == n_execution_episodes)
        assert_same(batch.problem_ids[b], trial.problem_id)


@settings(max_examples=300, deadline=None)
@given(plan=family_plans(), n_envs=st.integers(1, 4), n_steps=st.integers(1, 60), data=st.data())
def test_what_goes_in_comes_out(plan: FamilyPlan, n_envs: int, n_steps: int, data: st.DataObject) -> None:
    """Every whole trial is there and as it was lived; a trial of which the ring has overwritten a step is not. Else the
    agent would learn from the beginning of one trial and the end of another."""
    longest = (plan.max_length + 1) * (plan.n_exploration_episodes + plan.n_execution_episodes) - 1
    recorder = make_recorder(plan, n_envs, rows=data.draw(st.integers(longest, 2 * longest + 5), label="rows"))
    buffer = recorder.buffer
    recorder.run(n_steps)
    whole = {(trial.env, trial.first_row): trial for trial in recorder.whole_trials()}
    assert buffer.n_episodes == len(whole)
    if not whole:
        with pytest.raises(ValueError, match="No whole trial"):
            buffer.sample(4)
        return
    table = buffer._table[buffer._whole()]
    trials = [whole.pop((int(row["env"]), int(row["start"]))) for row in table]
    assert not whole
    for episode in range(1, plan.n_execution_episodes + 1):
        batch = buffer.batch(table, np.full(len(table), episode))
        assert_batch(batch, trials, [episode] * len(table), plan.n_execution_episodes)


@settings(max_examples=100, deadline=None)
@given(plan=family_plans(), n_envs=st.integers(1, 3), data=st.data())
def test_sample_gives_trials_that_were_lived(plan: FamilyPlan, n_envs: int, data: st.DataObject) -> None:
    """sample() pairs an exploration with executions of the same trial: another one's would teach a wrong z."""
    longest = (plan.max_length + 1) * (plan.n_exploration_episodes + plan.n_execution_episodes) - 1
    n_sampled = data.draw(st.integers(1, plan.n_execution_episodes), label="n_sampled_executions")
    recorder = make_recorder(plan, n_envs, 2 * longest, n_sampled)
    recorder.run(3 * longest)

    def key(exploration: np.ndarray, execution: np.ndarray) -> tuple[bytes, bytes]:
        return exploration.tobytes(), execution.tobytes()

    # the family's rewards are random real numbers, so they tell whose an execution episode is; exploration has its lengths
    lived = set()
    for trial in recorder.whole_trials():
        actions = np.array([step.action for step in trial.exploration()[:-1]])
        for number in range(1, plan.n_execution_episodes + 1):
            steps = trial.execution(number)[: None if number == plan.n_execution_episodes else -1]
            lived.add(key(actions, np.array([step.reward for step in steps], np.float32)))
    batch = recorder.buffer.sample(16, rng=np.random.default_rng(plan.seed))
    trial_of = batch.per_execution(th.arange(16))
    assert len(trial_of) == len(batch.execution.lengths) == 16 * n_sampled
    for execution, b in enumerate(trial_of):
        explored = batch.exploration.actions[: int(batch.exploration.lengths[b]), b].numpy()
        executed = batch.execution.rewards[: int(batch.execution.lengths[execution]), execution].numpy()
        assert key(explored, executed) in lived


def numbered_recorder(n_execution_episodes: int = 1, n_trials: int = 20, n_sampled_executions: int = 1) -> Recorder:
    """Trials of very different lengths, each in a problem of its own: 0, 1, 2, ..."""
    plan = FamilyPlan(spaces.Discrete(3), 2, spaces.Discrete(100), [0], 12, n_execution_episodes, seed=3)
    recorder = make_recorder(plan, 2, 2000, n_sampled_executions)
    count = iter(range(100))
    for env in recorder.envs:
        env.problem_id = next(count)
    while len(recorder.trials) < n_trials:
        before = len(recorder.trials)
        recorder.step()
        if len(recorder.trials) > before:
            for trial in recorder.trials[before:]:
                recorder.envs[trial.env].problem_id = next(count)
    return recorder


def test_every_trial_is_drawn_equally_often() -> None:
    """Drawing steps instead of trials would show long trials more often, and the agent would see mostly its own dawdling."""
    recorder = numbered_recorder(n_execution_episodes=3)
    assert len({len(trial.steps) for trial in recorder.trials}) > 5
    n_draws = 40_000
    batch = recorder.buffer.sample(n_draws, rng=np.random.default_rng(0))
    counts = np.unique(batch.problem_ids.numpy(), return_counts=True)[1]
    expected = n_draws / recorder.buffer.n_episodes
    assert len(counts) == recorder.buffer.n_episodes == len(recorder.trials)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 2.5 * len(counts)  # its mean is len(counts) - 1


@pytest.mark.parametrize("n_sampled", [1, 2, 3])
def test_every_execution_episode_is_drawn_equally_often(n_sampled: int) -> None:
    """If one of the N execution episodes were never drawn, its experience would be thrown away. None comes twice."""
    recorder = numbered_recorder(n_execution_episodes=3, n_trials=1, n_sampled_executions=n_sampled)
    rewards = [recorder.trials[0].execution(number)[0].reward for number in (1, 2, 3)]
    batch = recorder.buffer.sample(3000, rng=np.random.default_rng(0))
    ours = batch.problem_ids == int(recorder.trials[0].problem_id)
    drawn = batch.execution.rewards[0].view(n_sampled, 3000)[:, ours].numpy()
    shares = [np.mean(drawn == np.float32(reward)) for reward in rewards]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.05)
    assert all(len(set(episodes)) == n_sampled for episodes in drawn.T)


def test_more_execution_episodes_than_a_trial_has_cannot_be_drawn() -> None:
    """The error names the argument and the number of episodes."""
    with pytest.raises(ValueError, match="n_sampled_executions must be at most the 3 execution episodes of a trial, got 4"):
        numbered_recorder(n_execution_episodes=3, n_sampled_executions=4)


def test_the_table_of_trials_makes_room() -> None:
    """In a long run the ring is overwritten many times. The table must forget the trials that went, and no other."""
    plan = FamilyPlan(spaces.Discrete(3), 2, spaces.Discrete(9), [0, 4], 2, 1, seed=0)
    recorder = make_recorder(plan, n_envs=3, rows=150)
    for n_steps in (100, 150, 200, 333, 500):
        recorder.run(n_steps)
        table = recorder.buffer._table[recorder.buffer._whole()]
        whole = {(trial.env, trial.first_row): trial for trial in recorder.whole_trials()}
        assert recorder.buffer.n_episodes == len(whole) > 60
        trials = [whole.pop((int(row["env"]), int(row["start"]))) for row in table]
        assert_batch(recorder.buffer.batch(table, np.ones(len(table), dtype=int)), trials, [1] * len(table), 1)


def test_the_same_generator_draws_the_same_batch() -> None:
    """Seeded runs must repeat to the last bit."""
    buffer = numbered_recorder().buffer
    first, second = (buffer.sample(8, rng=np.random.default_rng(5)) for _ in range(2))
    third = buffer.sample(8, rng=np.random.default_rng(6))
    assert_same(first.problem_ids, second.problem_ids)
    assert not np.array_equal(first.problem_ids.numpy(), third.problem_ids.numpy())


def test_pickle_round_trip() -> None:
    """save_replay_buffer pickles it: after loading, the same trials must be there, and new ones must fit in behind."""
    recorder = numbered_recorder()
    copy = pickle.loads(pickle.dumps(recorder.buffer))
    first, second = (buffer.sample(8, rng=np.random.default_rng(5)) for buffer in (recorder.buffer, copy))
    assert_same(first.problem_ids, second.problem_ids)
    assert_same(first.execution.rewards, second.execution.rewards)
    recorder.buffer = copy
    while len(recorder.trials) < 30:
        recorder.step()
    table = copy._table[copy._whole()]
    by_place = {(trial.env, trial.first_row): trial for trial in recorder.trials}
    trials = [by_place[int(row["env"]), int(row["start"])] for row in table]
    assert_batch(copy.batch(table, np.ones(len(table), dtype=int)), trials, [1] * len(table), 1)


def test_reset_forgets_everything() -> None:
    """A trial that survived reset() would point at rows that are written anew."""
    recorder = numbered_recorder()
    recorder.buffer.reset()
    assert recorder.buffer.n_episodes == 0
    with pytest.raises(ValueError, match="No whole trial"):
        recorder.buffer.sample(1)


def test_unfinished_trials_can_be_dropped() -> None:
    """After learn() was stopped, new trials begin: their steps must not be joined to those of the trial that was cut."""
    plan = FamilyPlan(spaces.Discrete(3), 2, spaces.Discrete(9), [0], 4, 1, seed=0)
    recorder = make_recorder(plan, n_envs=2, rows=200)
    while len(recorder.trials) < 6 or not all(recorder.running):
        recorder.step()
    recorder.buffer.drop_unfinished_episodes()
    recorder.running = [[], []]
    recorder.observations = [env.reset()[0] for env in recorder.envs]
    while len(recorder.trials) < 12:
        recorder.step()
    table = recorder.buffer._table[recorder.buffer._whole()]
    by_place = {(trial.env, trial.first_row): trial for trial in recorder.trials}
    trials = [by_place[int(row["env"]), int(row["start"])] for row in table]
    assert len(trials) == 12
    assert_batch(recorder.buffer.batch(table, np.ones(12, dtype=int)), trials, [1] * 12, 1)


def test_a_trial_too_long_for_the_buffer_is_an_error() -> None:
    """Its beginning is overwritten when it ends. Silently, nothing would ever be learned."""
    plan = FamilyPlan(spaces.Discrete(3), 2, spaces.Discrete(9), [0], 12, 1, seed=3)
    recorder = make_recorder(plan, n_envs=1, rows=3)
    with pytest.raises(
        ValueError, match=r"A trial of 4 steps or more does not fit: buffer_size is enough for trials of at most 3 steps"
    ):
        recorder.run(100)


def test_a_trial_without_its_problem_id_is_an_error() -> None:
    """A training=False environment shows no ID, and without IDs there is nothing to learn from."""
    plan = FamilyPlan(spaces.Discrete(3), 2, spaces.Discrete(9), [0], 2, 1, seed=3)
    recorder = make_recorder(plan, n_envs=1, rows=30)
    recorder.envs[0].training = False
    with pytest.raises(ValueError, match="training=True"):
        recorder.run(100)


@pytest.mark.parametrize(("n_exploration_episodes", "n_execution_episodes"), [(1, 1), (1, 3), (2, 2), (2, 1)])
def test_a_trial_of_another_number_of_episodes_is_an_error(n_exploration_episodes: int, n_execution_episodes: int) -> None:
    """The table has room for so many ends: a trial with more or fewer would be cut at the wrong places, and one with as many
    but another phase would be learned from as something that it is not."""
    plan = FamilyPlan(spaces.Discrete(3), 2, spaces.Discrete(9), [0], 2, 2, seed=3)
    recorder = make_recorder(plan, n_envs=1, rows=30)
    env = recorder.envs[0]
    env.n_exploration_episodes, env.n_execution_episodes = n_exploration_episodes, n_execution_episodes
    env.reset()
    with pytest.raises(ValueError, match=rf"1 \+ 2 inner .* 0 ended has {n_exploration_episodes} \+ {n_execution_episodes} "):
        recorder.run(100)


def raw_bytes(buffer: TrialReplayBuffer) -> int:
    """The bytes of the observations, actions and rewards of a full buffer, counted from the spaces."""
    assert isinstance(buffer.observation_space, spaces.Dict)
    observation = sum(
        int(np.prod(space.shape or ())) * np.dtype(space.dtype).itemsize for space in buffer.observation_space.spaces.values()
    )
    return buffer.buffer_size * buffer.n_envs * (observation + np.dtype(buffer.action_space.dtype).itemsize + 4)


def held_bytes(buffer: TrialReplayBuffer) -> int:
    """The bytes of every array that the buffer holds, at any depth."""

    def size(value: Any) -> int:
        if isinstance(value, np.ndarray):
            return value.nbytes
        if isinstance(value, th.Tensor):
            return value.element_size() * value.nelement()
        if isinstance(value, dict):
            return sum(size(each) for each in value.values())
        return sum(size(each) for each in value) if isinstance(value, list | tuple) else sys.getsizeof(value)

    return sum(size(value) for key, value in vars(buffer).items() if not key.endswith("_space"))


@pytest.mark.parametrize(
    ("env_id", "n_execution_episodes"),
    # of frames, which are large beside all else: test_images.py
    [*((env_id, 1) for env_id in sorted(FAMILIES) if env_id != "MetaSign-v0"), ("MetaMap-v0", 3)],
)
def test_memory_is_that_of_the_raw_data(env_id: str, n_execution_episodes: int) -> None:
    """A million steps must fit where a user reckons they fit: no second copy, no table that outgrows the data."""
    env = make_vec_env(env_id, n_envs=4, seed=0, env_kwargs={"n_execution_episodes": n_execution_episodes})
    buffer = TrialReplayBuffer(
        20_000,
        env.observation_space,
        env.action_space,
        n_envs=4,
        problem_space=env.get_attr("problem_space")[0],
        n_execution_episodes=n_execution_episodes,
    )
    rng = np.random.default_rng(0)
    observations: Any = env.reset()
    for _ in range(int(1.5 * buffer.buffer_size)):
        # ends episodes soon, so that the table of trials is as long as it gets
        actions = np.where(rng.random(4) < 0.5, 6, rng.integers(env.action_space.n, size=4))  # type: ignore[attr-defined]
        before = observations
        observations, rewards, dones, infos = env.step(actions)
        buffer.add(before, observations, actions, rewards, dones, infos)
    assert buffer.full
    assert held_bytes(buffer) <= 1.1 * raw_bytes(buffer)


def test_a_new_buffer_takes_no_memory_yet() -> None:
    """enjoy and record_video load models with full-size buffers: rows must cost nothing until they are written."""
    env = TrialEnv(RandomFamily(spaces.Box(0, 255, (64, 64, 3), np.uint8), 2, spaces.Discrete(1), 3, 0), [0])
    before = resident_bytes()
    buffer = TrialReplayBuffer(10**5, env.observation_space, env.action_space, problem_space=env.problem_space)
    assert raw_bytes(buffer) > 10**9
    assert resident_bytes() - before < 10**8


def resident_bytes() -> int:
    """Memory that this process really has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def normalized_env(norm_reward: bool = True) -> VecNormalize:
    """Two environments whose observations have means and scales far from 0 and 1."""
    space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def make(seed: int) -> gym.Env:
        return TrialEnv(RandomFamily(space, 2, spaces.Discrete(3), 4, seed), [0, 1, 2])

    return VecNormalize(DummyVecEnv([lambda: make(0), lambda: make(1)]), norm_reward=norm_reward)


def test_sampling_with_vec_normalize_normalises() -> None:
    """The buffer stores raw data, and today's statistics apply when it is sampled: what was stored early would else be on
    another scale than what is acted on."""
    env = normalized_env()
    model = DREAM("MlpPolicy", env, seed=0, learning_starts=10**9, buffer_size=4000, batch_size=8, device="cpu").learn(600)
    buffer = model.replay_buffer
    assert buffer is not None
    assert set(np.unique(buffer.observations["exploring"][:100])) == {0.0, 1.0}, "raw data is stored"
    raw, normal = (buffer.sample(32, env=each, rng=np.random.default_rng(0)) for each in (None, env))
    for name in ("exploration", "execution"):
        raw_episodes, episodes = getattr(raw, name), getattr(normal, name)
        assert_same(episodes.actions, raw_episodes.actions)
        assert_same(episodes.lengths, raw_episodes.lengths)
        expected = np.clip(raw_episodes.rewards.numpy() / np.sqrt(env.ret_rms.var + env.epsilon), -10, 10)
        np.testing.assert_allclose(episodes.rewards.numpy(), expected, rtol=1e-5)
        assert isinstance(env.obs_rms, dict)
        for key, value in raw_episodes.observations.items():
            statistics = env.obs_rms[key]
            expected = (value.numpy() - statistics.mean) / np.sqrt(statistics.var + env.epsilon)
            np.testing.assert_allclose(episodes.observations[key].numpy(), np.clip(expected, -10, 10), rtol=1e-4, atol=1e-5)
    assert not np.array_equal(raw.exploration.observations["observation"], normal.exploration.observations["observation"])


def test_learning_under_vec_normalize_runs_every_loss() -> None:
    """The flags are normalised as well; acting and losses must still know exploration from execution."""
    env = normalized_env()
    model = DREAM("MlpPolicy", env, seed=0, learning_starts=100, buffer_size=4000, batch_size=8, train_freq=20, device="cpu")
    model.learn(600)
    assert model._n_updates > 0
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


@pytest.mark.parametrize("field", ["actions", "rewards", "lengths", "observations"])
def test_a_batch_of_shapes_that_disagree_is_refused(field: str) -> None:
    """A batch that broadcast silently would give losses of no meaning."""
    arguments: dict[str, Any] = {
        "observations": {"observation": th.zeros(4, 2, 3)},
        "actions": th.zeros(3, 2, dtype=th.int64),
        "rewards": th.zeros(3, 2),
        "lengths": th.tensor([3, 1]),
    }
    EpisodeBatch(**arguments)
    value = arguments[field]
    arguments[field] = {"observation": value["observation"][1:]} if field == "observations" else value[:1]
    with pytest.raises(ValueError, match=r"observations|agree"):
        EpisodeBatch(**arguments)
