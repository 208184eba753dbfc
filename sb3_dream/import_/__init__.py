"""IMPORT (Kamienny et al., 2020)."""

from sb3_dream.import_.import_ import IMPORT
from sb3_dream.import_.policies import CnnPolicy, IMPORTPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["IMPORT", "CnnPolicy", "IMPORTPolicy", "MlpPolicy", "MultiInputPolicy"]
