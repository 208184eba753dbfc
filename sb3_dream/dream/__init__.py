"""DREAM (Liu et al., ICML 2021)."""

from sb3_dream.dream.dream import DREAM
from sb3_dream.dream.policies import CnnPolicy, DREAMPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["DREAM", "CnnPolicy", "DREAMPolicy", "MlpPolicy", "MultiInputPolicy"]
