"""The distracting bus family: four more buses, none of which is worth taking."""

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

from sb3_dream.envs import oracle
from sb3_dream.envs.bus import DESTINATIONS, LINES, STOPS, BusEnv, bus_lines, draw_buses
from sb3_dream.envs.drawing import PALE_COLOURS, Picture
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

    def no_exploration_return(self) -> float:
        """
        The exact best expected return of one execution episode for an agent that has not explored.

        Helpful and useless orders are independent, so riding a useless bus tells nothing about the helpful ones; but it
        might be a short cut. The return is therefore held between two bounds, which meet. It is at least that of the
        plain bus family, whose agent may walk past the useless stops. It is at most that of a better informed agent, which
        is told the whole useless order as soon as it stands on a useless destination; that leaves few enough sets of worlds.
        One corner stands for all four: mirroring the grid turns any into any other and leaves the family as it is.

        :return: the return, undiscounted
        """
        at_least, at_most = BusEnv().no_exploration_return(), _better_informed_return()
        assert abs(at_least - at_most) < 1e-9, (at_least, at_most)
        return at_least

    def _draw_buses(self, picture: Picture, problem: int) -> None:
        super()._draw_buses(picture, problem)
        draw_buses(picture, USELESS_STOPS, self.lines(problem), PALE_COLOURS, "efgh", useless=True)
        picture.foot(
            ["square: bus stop     disc: destination     same letter and colour: same bus", "hatched: useless for every goal"]
        )


@cache
def _lines(problem: int) -> dict[Cell, Cell]:
    useless, helpful = divmod(problem, len(LINES))
    return LINES[helpful] | USELESS_LINES[useless]


@cache
def _better_informed_return() -> float:
    def told(problem: int, state: Cell) -> int | None:
        return problem // len(LINES) if state in USELESS_DESTINATIONS else None

    return oracle.best_return(DistractingBusEnv, [(problem, 0) for problem in range(DistractingBusEnv.n_problems)], told)
