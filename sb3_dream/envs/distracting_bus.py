"""The distracting bus family: four more buses, none of which is worth taking."""

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

from sb3_dream.envs.bus import DESTINATIONS, LINES, STOPS, BusEnv, bus_lines
from sb3_dream.envs.grid import Cell

USELESS_STOPS: tuple[Cell, ...] = ((5, 5), (3, 3), (3, 5), (5, 3))
USELESS_DESTINATIONS: tuple[Cell, ...] = ((0, 4), (4, 0), (8, 4), (4, 8))
USELESS_LINES = bus_lines(USELESS_STOPS, USELESS_DESTINATIONS)


class DistractingBusEnv(BusEnv):
    """
    ## Description
    The bus family (:class:`~sb3_dream.envs.bus.BusEnv`) with four more buses, which leave from the cells diagonal to
    the start and go to the middles of the edges in one of 4! orders. Knowing them does not help: a good exploration
    policy rides the helpful buses alone. The problem ID is helpful order + 24 x useless order, 576 problems;
    training has the 53 IDs 0, 11, 22, ..., test the other 523.

    ## Actions
    As in the bus family.

    ## Observation
    As in the bus family; status is 1 on the useless stops and destinations too.

    ## Rewards
    As in the bus family; the best return with the problem known is 0.8, and 0.3 without.

    ## Termination
    As in the bus family.

    ## Registered ids
    ``MetaDistractingBus-v0``

    :param render_mode: ``"rgb_array"`` or None
    """

    n_problems = len(LINES) * len(USELESS_LINES)
    bus_cells: ClassVar[frozenset[Cell]] = frozenset(STOPS + DESTINATIONS + USELESS_STOPS + USELESS_DESTINATIONS)

    @classmethod
    def problem_ids(cls, split: str) -> list[int]:
        """
        The problems of a split.

        :param split: ``"train"`` (every eleventh ID) or ``"test"`` (the rest)
        :return: their IDs, in increasing order
        """
        return [problem for problem in super().problem_ids(split) if (problem % 11 == 0) == (split == "train")]

    @classmethod
    def lines(cls, problem: int) -> Mapping[Cell, Cell]:
        """
        The buses of a problem, the useless ones among them.

        :param problem: the problem ID
        :return: where a ride leads, for every cell that a bus leaves from
        """
        return _lines(problem)


@cache
def _lines(problem: int) -> dict[Cell, Cell]:
    useless, helpful = divmod(problem, len(LINES))
    return LINES[helpful] | USELESS_LINES[useless]
