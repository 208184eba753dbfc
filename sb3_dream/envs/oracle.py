"""
The exact limits of a grid family: the best return with the problem known, and the best without having explored.

Both are one computation. A *world* is a problem and an instruction, and an agent that knows the rules but not the world
keeps the set of worlds that fit what it has seen (all equally likely, as problems and instructions are drawn uniformly and
worlds are deterministic). What it sees and that set are all that matters, so pairs (state, set of worlds) are the nodes of a
finite graph, on which 20 sweeps of value iteration give the best return exactly. With the problem known the set has one world.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sb3_dream.envs.grid import GridEnv

Family = type["GridEnv"]
World = tuple[int, int]

#: A set of worlds, as the bits of an integer.
WorldSet = int


@dataclass(frozen=True)
class BeliefGraph:
    """
    Which (state, set of worlds) leads where. An entry of ``source`` is node * n_actions + action.

    :param starts: the chance to start in node 0, 1, ...: what the start itself shows tells worlds apart
    :param rewards: (n_nodes * n_actions,) expected reward of each action in each node
    :param source: (n_edges,) the node and action that an edge belongs to
    :param target: (n_edges,) the node that it leads to
    :param probability: (n_edges,) how likely it is; what is missing to 1 is the chance that the episode ends
    """

    starts: np.ndarray
    rewards: np.ndarray
    source: np.ndarray
    target: np.ndarray
    probability: np.ndarray


def belief_graph(family: Family, worlds: Sequence[World], signal: Callable[[int, Any], Hashable] | None = None) -> BeliefGraph:
    """
    Every (state, set of worlds) within reach of one episode.

    :param family: the family's class
    :param worlds: the worlds that the agent cannot tell apart before the start, as (problem, instruction)
    :param signal: what a state of a problem shows to the agent; by default the family's ``observe``
    :return: the graph
    """
    signal = signal or family.observe
    actions = [action for action in range(family.n_actions) if action != family.end_episode]

    @cache
    def outcomes(state: Any) -> list[list[tuple[Any, float, bool, WorldSet]]]:
        """For each action what can happen, and in which worlds it does."""
        table = []
        for action in actions:
            sets: dict[tuple[Any, float, bool, Hashable], WorldSet] = {}
            for index, (problem, instruction) in enumerate(worlds):
                after, reward, done = family.rules(problem, instruction, state, action)
                after = family.simplify(problem, instruction, after)
                seen = (after, reward, done, signal(problem, after))
                sets[seen] = sets.get(seen, 0) | 1 << index
            table.append([(after, reward, done, within) for (after, reward, done, _), within in sets.items()])
        return table

    at_start: dict[Hashable, WorldSet] = {}
    for index, (problem, _) in enumerate(worlds):
        seen = signal(problem, family.start)
        at_start[seen] = at_start.get(seen, 0) | 1 << index
    numbers: dict[tuple[Any, WorldSet], int] = {(family.start, within): node for node, within in enumerate(at_start.values())}
    starts = [within.bit_count() / len(worlds) for within in at_start.values()]
    frontier = list(numbers)
    rewards, source, target, probability = array("d"), array("q"), array("q"), array("d")
    for _ in range(family.max_steps):
        found = []
        for state, possible in frontier:
            size = possible.bit_count()
            for branches in outcomes(state):
                expected = 0.0
                for after, reward, done, within in branches:
                    still = possible & within
                    if not still:
                        continue
                    chance = still.bit_count() / size
                    expected += chance * reward
                    if not done:
                        node = (after, still)
                        number = numbers.get(node)
                        if number is None:
                            number = numbers[node] = len(numbers)
                            found.append(node)
                        source.append(len(rewards))
                        target.append(number)
                        probability.append(chance)
                rewards.append(expected)
        frontier = found
    # Nodes first reached by the last step are left: no step follows there, so whatever stands in their rows is never used.
    rewards.extend([0.0] * (len(numbers) * len(actions) - len(rewards)))
    return BeliefGraph(*map(np.array, (starts, rewards, source, target, probability)))


def sweeps(family: Family, graph: BeliefGraph) -> Iterator[np.ndarray]:
    """
    Value iteration, one step to go, two, up to a whole episode.

    :param family: the family's class
    :param graph: its belief graph
    :return: each time the values of all nodes and actions but ``END_EPISODE``, (n_nodes, n_actions - 1)
    """
    n_actions = family.n_actions - 1
    values = np.zeros(len(graph.rewards) // n_actions)
    for steps_left in range(1, family.max_steps + 1):
        future = np.bincount(graph.source, graph.probability * values[graph.target], len(graph.rewards))
        action_values = (graph.rewards + future).reshape(-1, n_actions)
        yield action_values
        values = np.maximum(action_values.max(axis=1), family.end_reward(steps_left))


def best_return(family: Family, worlds: Sequence[World], signal: Callable[[int, Any], Hashable] | None = None) -> float:
    """
    The best expected return of an episode for an agent that knows only that it is in one of some worlds.

    :param family: the family's class
    :param worlds: the worlds, equally likely, as (problem, instruction)
    :param signal: what a state of a problem shows to the agent; by default the family's ``observe``
    :return: the return, undiscounted
    """
    graph = belief_graph(family, worlds, signal)
    best = np.zeros(len(graph.starts))
    for steps_left, action_values in enumerate(sweeps(family, graph), start=1):
        best = np.maximum(action_values[: len(best)].max(axis=1), family.end_reward(steps_left))
    return float(graph.starts @ best)


def optimal_actions(family: Family, problem: int, instruction: int) -> list[int]:
    """
    Actions that bring the best return when the problem is known.

    :param family: the family's class
    :param problem: the problem ID
    :param instruction: index of the instruction
    :return: the actions of one execution episode
    """
    graph = belief_graph(family, [(problem, instruction)])
    leads_to = dict(zip(graph.source.tolist(), graph.target.tolist(), strict=True))
    played = [action for action in range(family.n_actions) if action != family.end_episode]
    actions: list[int] = []
    node: int | None = 0
    for action_values in reversed(list(sweeps(family, graph))):
        if node is None:
            break
        best = int(action_values[node].argmax())
        if action_values[node, best] < family.end_reward(family.max_steps - len(actions)):
            return [*actions, family.end_episode]
        actions.append(played[best])
        node = leads_to.get(node * len(played) + best)
    return actions


@cache
def optimal_return(family: Family, problem: int) -> float:
    """
    The best return of an execution episode with the problem known, on average over the instructions.

    :param family: the family's class
    :param problem: the problem ID
    :return: the return, undiscounted
    """
    alike = Counter(family.instruction_vector(problem, index) for index in range(family.n_instructions))
    first = {family.instruction_vector(problem, index): index for index in reversed(range(family.n_instructions))}
    total = sum(count * best_return(family, [(problem, first[vector])]) for vector, count in alike.items())
    return total / family.n_instructions


@cache
def no_exploration_return(family: Family, **view: Any) -> float:
    """
    The best expected return of an execution episode in a problem that is not known, all being equally likely, on average
    over the instructions. The instruction itself may tell of the problem (a recipe names what the drawers hold), and the
    agent may learn during the episode.

    :param family: the family's class
    :param view: arguments of the family's ``observe``
    :return: the return, undiscounted
    """
    groups: dict[tuple[int, ...], list[World]] = {}
    for problem in range(family.n_problems):
        for instruction in range(family.n_instructions):
            groups.setdefault(family.instruction_vector(problem, instruction), []).append((problem, instruction))
    signal = partial(family.observe, **view)
    total = sum(len(worlds) * best_return(family, worlds, signal) for worlds in groups.values())
    return total / (family.n_problems * family.n_instructions)
