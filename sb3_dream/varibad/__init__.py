"""VariBAD (Zintgraf et al., 2020)."""

from sb3_dream.varibad.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, VariBADPolicy
from sb3_dream.varibad.varibad import VariBAD

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "VariBAD", "VariBADPolicy"]
