"""DREAM for Stable-Baselines3."""

from sb3_dream.common.batches import EpisodeBatch, TrialBatch
from sb3_dream.common.buffers import EpisodeReplayBuffer
from sb3_dream.common.callbacks import ExplainCallback
from sb3_dream.common.evaluation import evaluate_problems
from sb3_dream.common.plots import plot_trial, plot_z_space
from sb3_dream.common.records import TrialExplanation, TrialRecord, play_trial
from sb3_dream.common.results import TrialResults
from sb3_dream.common.trial import TrialEnv
from sb3_dream.common.trial_buffers import TrialReplayBuffer
from sb3_dream.common.trial_checker import check_trial_env
from sb3_dream.common.visualization import animate_trial, record_trial
from sb3_dream.dream import DREAM
from sb3_dream.envs import register_envs
from sb3_dream.import_ import IMPORT
from sb3_dream.recurrent_dqn import RecurrentDQN
from sb3_dream.varibad import VariBAD
from sb3_dream.version import __version__

__all__ = [
    "DREAM",
    "IMPORT",
    "EpisodeBatch",
    "EpisodeReplayBuffer",
    "ExplainCallback",
    "RecurrentDQN",
    "TrialBatch",
    "TrialEnv",
    "TrialExplanation",
    "TrialRecord",
    "TrialReplayBuffer",
    "TrialResults",
    "VariBAD",
    "__version__",
    "animate_trial",
    "check_trial_env",
    "evaluate_problems",
    "play_trial",
    "plot_trial",
    "plot_z_space",
    "record_trial",
]

register_envs()
