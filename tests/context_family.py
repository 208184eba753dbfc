"""A family of contexts with CARL's interface, which cannot be installed beside Gymnasium 1: CartPole of other gravities."""

from typing import Any

import gymnasium as gym
from gymnasium import spaces

Context = dict[str, float]


class RoundRobin:
    """CARL's default: the next context at each reset."""

    def __init__(self, contexts: dict[Any, Context]):
        self.contexts = list(contexts.values())
        self.context_id: int | None = None

    def select(self) -> Context:
        """Go on to the next one."""
        self.context_id = 0 if self.context_id is None else (self.context_id + 1) % len(self.contexts)
        return self.contexts[self.context_id]


class ContextCartPole(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole with ``contexts``; the observation shows the one that holds."""

    def __init__(self, contexts: dict[Any, Context] | None = None):
        super().__init__(gym.make("CartPole-v1", max_episode_steps=30))
        contexts = contexts or {0: {}}
        self.contexts = {key: {**self.get_default_context(), **context} for key, context in contexts.items()}
        self.context_selector = RoundRobin(self.contexts)
        self.context: Context = {}
        numbers = spaces.Dict({name: spaces.Box(0.0, 100.0, (1,)) for name in self.get_default_context()})
        self.observation_space = spaces.Dict({"obs": self.env.observation_space, "context": numbers})

    @classmethod
    def get_default_context(cls) -> Context:
        """What a context leaves out."""
        return {"gravity": 9.8, "length": 0.5}

    def _observe(self, observation: Any) -> dict[str, Any]:
        return {"obs": observation, "context": self.context}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Go on to the selector's next context, and put it into effect if its number is another."""
        last = self.context_selector.context_id
        self.context = self.context_selector.select()
        if self.context_selector.context_id != last:
            for name, value in self.context.items():
                setattr(self.env.unwrapped, name, value)
        observation, info = self.env.reset(seed=seed)
        return self._observe(observation), {**info, "context_id": self.context_selector.context_id}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step of CartPole."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation), reward, terminated, truncated, info
