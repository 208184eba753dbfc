"""The algorithms here, by the names that commands take."""

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_dream.dream import DREAM
from sb3_dream.import_ import IMPORT
from sb3_dream.recurrent_dqn import RecurrentDQN
from sb3_dream.varibad import VariBAD

#: by the name that ``--algo`` takes, which is that of the file in benchmarks/hyperparams
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "dream": DREAM,
    "recurrent_dqn": RecurrentDQN,
    "import": IMPORT,
    "varibad": VariBAD,
}
