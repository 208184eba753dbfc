"""Double dueling recurrent DQN; on trials, E-RL²."""

from sb3_dream.recurrent_dqn.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, RecurrentDQNPolicy
from sb3_dream.recurrent_dqn.recurrent_dqn import RecurrentDQN

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "RecurrentDQN", "RecurrentDQNPolicy"]
