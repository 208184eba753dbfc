"""The bus family: which stop's bus goes to which corner?"""

from collections.abc import Mapping
from itertools import permutations
from typing import Any, ClassVar

import numpy as np

from sb3_dream.envs.drawing import COLOURS, PAPER, Picture
from sb3_dream.envs.grid import BUS_STOP, NO_OP, NOTHING, RIDE, STEP_REWARD, Cell, GridEnv, walks

STOPS: tuple[Cell, ...] = ((4, 5), (5, 4), (3, 4), (4, 3))
DESTINATIONS: tuple[Cell, ...] = ((0, 1), (0, 7), (8, 1), (8, 7))
GOALS: tuple[Cell, ...] = ((0, 0), (8, 8), (0, 8), (8, 0))
WALKS = walks(9, 9)


def bus_lines(stops: tuple[Cell, ...], destinations: tuple[Cell, ...]) -> list[dict[Cell, Cell]]:
    """
    Every way of joining stops to destinations, in ``itertools.permutations`` order.

    :param stops: where the buses leave from
    :param destinations: where they go, one for each stop
    :return: for each order, where a ride from a stop or destination leads
    """
    lines = []
    for order in permutations(destinations):
        out = dict(zip(stops, order, strict=True))
        lines.append(out | {destination: stop for stop, destination in out.items()})
    return lines


LINES = bus_lines(STOPS, DESTINATIONS)


class BusEnv(GridEnv):
    """
    ## Description
    A 9x9 city. The agent starts in the middle (4, 4), and four bus stops lie around it. Each bus goes to a
    destination beside one of the four corners, and which bus goes where (one of 4! = 24 orders, in the order of
    ``itertools.permutations``) is the *problem*. The instruction names the corner to reach. An agent that has ridden the
    buses while exploring rides the right one when executing; one that has not does best to walk.

    ## Actions
    | action | meaning |
    | --- | --- |
    | 0, 1, 2, 3 | left (x - 1), up (y + 1), right (x + 1), down (y - 1); the edge of the grid stops the agent |
    | 4 | no-op |
    | 5 | ride the bus: from a stop to its destination, from a destination back to its stop, elsewhere nothing |
    | 6 | end the episode |

    ## Observation
    A ``Dict``. ``observation`` is (x, y, status): status is 1 on a bus stop, and so on a destination, where a bus leaves
    from as well; else 0. The colour of a bus is drawn by ``render`` but is not observed. ``instruction`` is the one-hot goal
    corner out of (0, 0), (8, 8), (0, 8), (8, 0), and zeros while exploring.

    ## Rewards
    -0.1 a step; reaching the goal corner pays 1 instead. Ending the episode costs 0.1 more for every step that was left.
    While exploring no corner is a goal. The best return with the problem known is 0.8, and 0.3 without.

    ## Termination
    On reaching the goal corner, on action 6, and after 20 steps.

    ## Registered ids
    None of its own: ``MetaDistractingBus-v0`` and ``MetaMap-v0`` build on it.

    :param render_mode: ``"rgb_array"`` or None
    """

    width, height = 9, 9
    start = (4, 4)
    n_actions = 7
    action_names = ("left", "up", "right", "down", "no-op", "ride", "end")
    n_problems = len(LINES)
    n_instructions = instruction_size = len(GOALS)
    observation_sizes: ClassVar[tuple[int, ...]] = (9, 9, 2)

    #: Every cell that a bus leaves from, whatever the problem.
    bus_cells: ClassVar[frozenset[Cell]] = frozenset(STOPS + DESTINATIONS)

    @classmethod
    def problem_ids(cls, split: str) -> list[int]:
        """
        The problems of a split: all 24 in both, as in the map family.

        :param split: ``"train"`` or ``"test"``
        :return: their IDs, in increasing order
        """
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        return list(range(cls.n_problems))

    @classmethod
    def lines(cls, problem: int) -> Mapping[Cell, Cell]:
        """
        The buses of a problem.

        :param problem: the problem ID
        :return: where a ride leads, for every cell that a bus leaves from
        """
        return LINES[problem]

    @classmethod
    def rules(cls, problem: int, instruction: int | None, state: Any, action: int) -> tuple[Any, float, bool]:
        """
        What one action does. The state is the agent's cell.

        :param problem: the problem ID
        :param instruction: index of the goal corner; None while exploring
        :param state: the agent's cell
        :param action: any action but ``END_EPISODE``
        :return: the next cell, the reward, and whether it is the goal
        """
        cell = WALKS[state][action] if action <= NO_OP else cls.lines(problem).get(state, state)
        if instruction is not None and cell == GOALS[instruction]:
            return cell, 1.0, True
        return cell, STEP_REWARD, False

    @classmethod
    def observe(cls, problem: int, state: Any) -> tuple[int, ...]:
        """
        What the agent sees: its cell, and whether a bus leaves from there.

        :param problem: the problem ID
        :param state: the agent's cell
        :return: x, y, status
        """
        return (*state, BUS_STOP if state in cls.bus_cells else NOTHING)

    @classmethod
    def instruction_vector(cls, problem: int, instruction: int) -> tuple[int, ...]:
        """
        The goal corner, one-hot.

        :param problem: the problem ID, which the instruction does not depend on
        :param instruction: index of the goal corner
        :return: zeros and a one
        """
        return tuple(int(index == instruction) for index in range(cls.n_instructions))

    def _draw(self, picture: Picture, problem: int) -> str:
        if self._instruction is not None:
            picture.flag(GOALS[self._instruction])
        self._draw_buses(picture, problem)
        picture.agent(self._state, 0.4, (0.0, -0.18))
        return "no goal while exploring" if self._instruction is None else f"goal: the flag at {GOALS[self._instruction]}"

    def _draw_buses(self, picture: Picture, problem: int) -> None:
        draw_buses(picture, STOPS, self.lines(problem), COLOURS, "ABCD")
        picture.foot(["square: bus stop     disc: destination     same letter and colour: same bus"])

    #: The stops whose buses help.
    helpful_cells: ClassVar[frozenset[Cell]] = frozenset(STOPS + DESTINATIONS)

    def describe_exploration(
        self, problem_ids: np.ndarray, observations: list[np.ndarray], actions: list[np.ndarray]
    ) -> dict[str, float]:
        """
        What was explored, in figures.

        :param problem_ids: (P,)
        :param observations: while exploring, of each of the P trials
        :param actions: of each of them
        :return: ``helpful_buses`` and ``useless_buses``, how many different ones were ridden in a trial, on average
        """
        helpful, useless = [], []
        for problem, seen, taken in zip(problem_ids, observations, actions, strict=True):
            lines = self.lines(int(problem))
            boarded = {(int(x), int(y)) for (x, y, *_), action in zip(seen, taken, strict=False) if action == RIDE}
            buses = {frozenset((cell, lines[cell])) for cell in boarded if cell in lines}  # both ways are one bus
            n_helpful = sum(bus <= self.helpful_cells for bus in buses)
            helpful.append(n_helpful)
            useless.append(len(buses) - n_helpful)
        return {"helpful_buses": float(np.mean(helpful)), "useless_buses": float(np.mean(useless))}


def draw_buses(
    picture: Picture,
    stops: tuple[Cell, ...],
    lines: Mapping[Cell, Cell],
    colours: tuple[str, ...],
    names: str,
    useless: bool = False,
) -> None:
    """
    Draw each stop as a square and its destination as a disc of the same colour, both with the same letter.

    :param picture: the frame
    :param stops: the stops
    :param lines: where a ride leads
    :param colours: a colour for each stop
    :param names: a letter for each stop
    :param useless: whether to hatch them
    """
    for stop, colour, name in zip(stops, colours, names, strict=True):
        picture.square(stop, 0.88, colour)
        picture.disc(lines[stop], 0.88, colour)
        for cell in (stop, lines[stop]):
            if useless:
                picture.hatch(cell, 0.62)
                picture.disc(cell, 0.42, colour, None, (0.0, 0.22))
            picture.label(cell, name, 16, PAPER, (0.0, 0.23))
