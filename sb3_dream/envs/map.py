"""The map family: the buses, and a map that tells where each one goes."""

from typing import Any, ClassVar

import numpy as np

from sb3_dream.envs.bus import BusEnv
from sb3_dream.envs.drawing import Picture
from sb3_dream.envs.grid import Cell

MAP: Cell = (7, 3)


class MapEnv(BusEnv):
    """
    ## Description
    The bus family (:class:`~sb3_dream.envs.bus.BusEnv`) with a map at (7, 3), which shows the problem ID to whoever
    stands on it. Walking to the map costs four steps; exploring by riding takes more. Training and test both
    have all 24 problems.

    ## Actions
    As in the bus family.

    ## Observation
    As in the bus family, with a fourth entry: problem ID + 1 on the map, else 0.

    ## Rewards
    As in the bus family; the best return with the problem known is 0.8, and 0.3 without.

    ## Termination
    As in the bus family.

    ## Registered ids
    ``MetaMap-v0``

    :param render_mode: ``"rgb_array"`` or None
    """

    observation_sizes: ClassVar[tuple[int, ...]] = (9, 9, 2, BusEnv.n_problems + 1)

    @classmethod
    def observe(cls, problem: int, state: Any) -> tuple[int, ...]:
        """
        What the agent sees: as in the bus family, and what the map shows.

        :param problem: the problem ID
        :param state: the agent's cell
        :return: x, y, status, and problem ID + 1 on the map or 0 elsewhere
        """
        return (*super().observe(problem, state), problem + 1 if state == MAP else 0)

    def _draw_buses(self, picture: Picture, problem: int) -> None:
        super()._draw_buses(picture, problem)
        picture.square(MAP, 0.92, "#f6e3b4", "#8a6d1f", corner=0.04)
        picture.label(MAP, "MAP", 13, "#8a6d1f", (0.0, 0.3))

    def describe_exploration(
        self, problem_ids: np.ndarray, observations: list[np.ndarray], actions: list[np.ndarray]
    ) -> dict[str, float]:
        """
        What was explored, in figures.

        :param problem_ids: (P,)
        :param observations: while exploring, of each of the P trials
        :param actions: of each of them
        :return: as in the bus family, and ``map_visits``, the share of trials that went to the map
        """
        figures = super().describe_exploration(problem_ids, observations, actions)
        return {"map_visits": float(np.mean([bool(seen[:, 3].any()) for seen in observations])), **figures}
