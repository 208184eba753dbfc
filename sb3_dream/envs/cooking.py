"""The cooking family: which drawer holds which ingredient?"""

from typing import Any, ClassVar

import numpy as np

from sb3_dream.envs.drawing import COLOURS, INK, PAPER, Picture
from sb3_dream.envs.grid import BOWL, DRAWER, DROP, NO_OP, NOTHING, PICK_UP, STEP_REWARD, Cell, GridEnv, walks

DRAWERS: tuple[Cell, ...] = ((2, 0), (2, 1), (2, 2))
BOWL_CELL: Cell = (1, 1)
BOWL_SIZE = 3
N_INGREDIENTS = 4
EMPTY = N_INGREDIENTS
NAMES = "ABCD"  # of the ingredients 0..3, in frames
TEST_PROBLEM = 10
SUBGOAL_REWARD = 0.25
PENALTY = -0.25
WALKS = walks(3, 3)

#: For each problem what the drawers hold: the ID in base 4, the first drawer its lowest digit.
CONTENTS = [tuple(problem // N_INGREDIENTS**drawer % N_INGREDIENTS for drawer in range(3)) for problem in range(4**3)]
_DRAWER_AT = {cell: drawer for drawer, cell in enumerate(DRAWERS)}
_STATUS = dict.fromkeys(DRAWERS, DRAWER) | {BOWL_CELL: BOWL}


class CookingEnv(GridEnv):
    """
    ## Description
    A 3x3 kitchen. The agent starts in the middle (1, 1), where the bowl is. The drawers (2, 0), (2, 1), (2, 2) each hold
    one of 4 ingredients, and never run out; which ones is the *problem* (64 of them: the ID in base 4, first
    drawer the lowest digit). Test is ID 10, training the other 63. The instruction is a recipe: two ingredients, each
    drawn from the drawers (so both may be the same), to be put in the bowl in order.

    ## Actions
    | action | meaning |
    | --- | --- |
    | 0, 1, 2, 3 | left (x - 1), up (y + 1), right (x + 1), down (y - 1); the edge of the grid stops the agent |
    | 4, 5 | no-op (there is no bus to ride) |
    | 6 | end the episode |
    | 7 | pick up: take what the drawer holds, in place of what is held; at the bowl, empty the hand; elsewhere nothing |
    | 8 | drop: empty the hand; at the bowl, what was held lands in it, as long as fewer than 3 ingredients lie there |

    ## Observation
    A ``Dict``. ``observation`` is (x, y, status, held, bowl, bowl, bowl): status is 2 at the bowl, 3 at a drawer, else 0; the
    rest are ingredients 0..3, or 4 for nothing. ``instruction`` is the recipe as two one-hots of 4, and zeros while
    exploring. ``reset(options={"instruction": i + 3 * j})`` asks for what drawers i and j hold.

    ## Rewards
    -0.1 a step. Four subgoals, in order, pay 0.25 instead: hold the first ingredient, have it in the bowl, hold the
    second, have it in the bowl too. While looking for an ingredient, a pick-up that leaves anything else (or nothing) in
    the hand costs 0.25 more; losing the ingredient on the way to the bowl costs 0.25 more, and it must be found
    again. Ending the episode costs 0.1 more for every step that was left. While exploring there are no subgoals, and
    each step costs 0.1 whatever is picked up. The best return with the problem known is 0.46667 for ID 10, and 0.398942
    on average over the 63 training problems.

    ## Termination
    When the recipe lies in the bowl, on action 6, and after 20 steps.

    ## Registered ids
    ``MetaCooking-v0``

    :param render_mode: ``"rgb_array"`` or None
    """

    width, height = 3, 3
    start = (BOWL_CELL, EMPTY, (), 0)
    n_actions = 9
    action_names = ("left", "up", "right", "down", "no-op", "no-op (5)", "end", "pick up", "drop")
    n_problems = len(CONTENTS)
    n_instructions = len(DRAWERS) ** 2
    instruction_size = 2 * N_INGREDIENTS
    observation_sizes: ClassVar[tuple[int, ...]] = (3, 3, 4) + (N_INGREDIENTS + 1,) * (1 + BOWL_SIZE)

    @classmethod
    def problem_ids(cls, split: str) -> list[int]:
        """
        The problems of a split.

        :param split: ``"train"`` (all but ID 10) or ``"test"`` (ID 10)
        :return: their IDs, in increasing order
        """
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        return [problem for problem in range(cls.n_problems) if (problem == TEST_PROBLEM) == (split == "test")]

    @classmethod
    def recipe(cls, problem: int, instruction: int) -> tuple[int, int]:
        """
        The two ingredients that an instruction asks for.

        :param problem: the problem ID
        :param instruction: i + 3 * j for the contents of drawers i and j
        :return: the first and the second ingredient
        """
        contents = CONTENTS[problem]
        return contents[instruction % 3], contents[instruction // 3]

    @classmethod
    def rules(cls, problem: int, instruction: int | None, state: Any, action: int) -> tuple[Any, float, bool]:
        """
        What one action does. Subgoals 0 and 2 look for an ingredient, 1 and 3 carry it to the bowl.

        :param problem: the problem ID
        :param instruction: i + 3 * j for the contents of drawers i and j; None while exploring
        :param state: cell, held, bowl, number of subgoals reached
        :param action: any action but ``END_EPISODE``
        :return: the next state, the reward, and whether the recipe is complete
        """
        cell, held, bowl, subgoal = state
        if action <= NO_OP:
            cell = WALKS[cell][action]
        elif action == PICK_UP:
            if cell in _DRAWER_AT:
                held = CONTENTS[problem][_DRAWER_AT[cell]]
            elif cell == BOWL_CELL:
                held = EMPTY
        elif action == DROP:
            if cell == BOWL_CELL and held != EMPTY and len(bowl) < BOWL_SIZE:
                bowl = (*bowl, held)
            held = EMPTY
        reward = STEP_REWARD
        if instruction is not None:
            recipe = cls.recipe(problem, instruction)
            wanted = recipe[subgoal // 2]
            if subgoal in (0, 2):
                if held == wanted:
                    subgoal, reward = subgoal + 1, SUBGOAL_REWARD
                elif action == PICK_UP:
                    reward += PENALTY
            elif bowl == recipe[: subgoal // 2 + 1]:
                subgoal, reward = subgoal + 1, SUBGOAL_REWARD
            elif held != wanted:
                subgoal, reward = subgoal - 1, reward + PENALTY
        return (cell, held, bowl, subgoal), reward, subgoal == 4

    @classmethod
    def observe(cls, problem: int, state: Any) -> tuple[int, ...]:
        """
        What the agent sees: its cell and what is there, what it holds, and what lies in the bowl.

        :param problem: the problem ID
        :param state: cell, held, bowl, number of subgoals reached
        :return: x, y, status, held, and the three slots of the bowl
        """
        (x, y), held, bowl, _ = state
        return (x, y, _STATUS.get((x, y), NOTHING), held, *bowl, *(EMPTY,) * (BOWL_SIZE - len(bowl)))

    @classmethod
    def simplify(cls, problem: int, instruction: int, state: Any) -> Any:
        """
        All spoilt bowls are alike: nothing leaves the bowl, so once it holds anything but the start of the recipe no
        subgoal that is about the bowl can be reached, and what lands there was seen in the hand before.

        :param problem: the problem ID
        :param instruction: i + 3 * j for the contents of drawers i and j
        :param state: cell, held, bowl, number of subgoals reached
        :return: the state, a spoilt bowl being full of nothing
        """
        cell, held, bowl, subgoal = state
        spoilt = bowl != cls.recipe(problem, instruction)[: len(bowl)]
        return (cell, held, (EMPTY,) * BOWL_SIZE, subgoal) if spoilt else state

    @classmethod
    def instruction_vector(cls, problem: int, instruction: int) -> tuple[int, ...]:
        """
        The recipe as two one-hots.

        :param problem: the problem ID
        :param instruction: i + 3 * j for the contents of drawers i and j
        :return: zeros and two ones
        """
        first, second = cls.recipe(problem, instruction)
        return tuple(int(index in (first, N_INGREDIENTS + second)) for index in range(cls.instruction_size))

    def _draw(self, picture: Picture, problem: int) -> str:
        cell, held, bowl, subgoal = self._state
        for drawer, contents in zip(DRAWERS, CONTENTS[problem], strict=True):
            picture.square(drawer, 0.94, "#d9b98c", "#7a5a2b", corner=0.06)
            picture.label(drawer, "drawer", 13, "#5b431f", (0.0, 0.38))
            _draw_ingredient(picture, drawer, contents, 0.26, (0.26, 0.0))
        picture.disc(BOWL_CELL, 0.94, "#e4eef5", "#51708a", line=3)
        picture.label(BOWL_CELL, "bowl", 13, "#51708a", (0.0, 0.38))
        for slot in range(BOWL_SIZE):
            _draw_ingredient(picture, BOWL_CELL, bowl[slot] if slot < len(bowl) else EMPTY, 0.2, (0.24 * (slot - 1), 0.22))
        agent = (-0.2, -0.2) if cell != BOWL_CELL else (0.0, -0.12)
        picture.agent(cell, 0.3, agent)
        if held != EMPTY:
            _draw_ingredient(picture, cell, held, 0.2, (agent[0] + 0.19, agent[1] - 0.12))
        hand = "nothing" if held == EMPTY else NAMES[held]
        picture.foot([f"in the hand: {hand}     in the bowl: {', '.join(NAMES[item] for item in bowl) or 'nothing'}"])
        if self._instruction is None:
            return "no recipe while exploring"
        first, second = self.recipe(problem, self._instruction)
        return f"recipe: {NAMES[first]}, then {NAMES[second]} ({subgoal} of 4 done)"

    def describe_exploration(
        self, problem_ids: np.ndarray, observations: list[np.ndarray], actions: list[np.ndarray]
    ) -> dict[str, float]:
        """
        What was explored, in figures.

        :param problem_ids: (P,)
        :param observations: while exploring, of each of the P trials
        :param actions: of each of them
        :return: ``drawers_opened``, how many of the three in a trial, on average
        """
        opened = [
            {(int(x), int(y)) for (x, y, *_), action in zip(seen, taken, strict=False) if action == PICK_UP} & set(DRAWERS)
            for seen, taken in zip(observations, actions, strict=True)
        ]
        return {"drawers_opened": float(np.mean([len(each) for each in opened]))}


def _draw_ingredient(picture: Picture, cell: Cell, ingredient: int, size: float, shift: tuple[float, float]) -> None:
    if ingredient == EMPTY:
        picture.disc(cell, size, None, "#9fb4c4", shift)
        return
    picture.disc(cell, size + 0.02, PAPER, None, shift)
    picture.disc(cell, size, COLOURS[ingredient], INK, shift)
    picture.label(cell, NAMES[ingredient], round(80 * size), PAPER, shift)
