"""The sign family: an object's colour is written behind a wall, in MiniWorld."""

import os
import sys
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from sb3_dream.envs.grid import read_options
from sb3_dream.envs.sign_picture import draw_episode

if TYPE_CHECKING:
    from sb3_dream.envs.sign_world import SignWorld

COLOURS = ("blue", "red", "green")
SHAPES = ("box", "key", "ball")
N_ACTIONS = 4
MAX_STEPS = 20

#: A pixel of the sign's board is at least so pale, and its channels differ by so little: nothing else in the world is both.
PALE, COLOURLESS = 140, 2
#: With so many of them, half a percent of the frame, the sign is in view.
SIGN_PIXELS = 24

GL_PACKAGES = "libegl1 libgl1 libglu1-mesa libgl1-mesa-dri libfreetype6 libfontconfig1"


class SignEnv(gym.Env[Any, Any]):
    """
    ## Description
    MiniWorld's ``MiniWorld-Sign-v0``, seen through the agent's eyes. A room holds a blue, a red and a green box, and a key of
    each colour. On a wall that cannot be seen from there a sign says BLUE, RED or GREEN: the *problem*, 0 to 2, all in both
    splits. The instruction names the shape to touch, and the sign its colour. Where the agent starts, and how it and the
    objects are turned, is drawn for each episode. With the same seed, colour and goal the frames are those of MiniWorld, pixel
    by pixel.

    ``shapes=("box", "key", "ball")`` adds a ball of each colour and a third instruction.

    ## Actions
    | action | meaning |
    | --- | --- |
    | 0, 1 | turn left, turn right, by 45 degrees |
    | 2 | 0.7 m forward; walls stop the agent |
    | 3 | end the episode (in MiniWorld this is also a step back, which may touch something) |

    ## Observation
    A ``Dict``. ``observation`` is an image, (60, 80, 3), uint8. ``instruction`` is the shape, one-hot, and zeros while
    exploring.

    ## Rewards
    1 for touching the object of the sign's colour and the instruction's shape, -1 for touching another, else 0. While
    exploring always 0: a touch ends the episode and tells nothing. The best return with the problem known is 1. It is 1 also
    without having explored, as there is time to look at the sign on the way; without a look it is 0, by touching nothing.

    ## Termination
    On touching an object, on action 3, and (truncated, as in MiniWorld) after 20 steps.

    ## Registered ids
    ``MetaSign-v0``

    :param shapes: ``("box", "key")`` or ``("box", "key", "ball")``
    :param render_mode: ``"rgb_array"`` or None
    :raises ValueError: for other shapes or another render mode
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012
    n_problems = len(COLOURS)
    #: for pictures
    action_names = ("turn left", "turn right", "forward", "end")
    #: trials of each problem in an evaluation by the benchmarks: as an episode's start is random, one would not do
    n_evaluation_trials = 100

    def __init__(self, shapes: tuple[str, ...] = SHAPES[:2], render_mode: str | None = None) -> None:
        if tuple(shapes) not in (SHAPES[:2], SHAPES):
            raise ValueError(f"shapes must be {SHAPES[:2]} or {SHAPES}, not {shapes!r}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be None or one of {self.metadata['render_modes']}, not {render_mode!r}")
        self.shapes = tuple(shapes)
        self.n_instructions = len(self.shapes)
        self.render_mode = render_mode
        self.problem_space = spaces.Discrete(self.n_problems)
        self.action_space = spaces.Discrete(N_ACTIONS)
        self.observation_space = spaces.Dict(
            {
                "observation": spaces.Box(0, 255, (60, 80, 3), np.uint8),
                "instruction": spaces.Box(0.0, 1.0, (self.n_instructions,), np.float32),
            }
        )
        self.caption = ""
        self._world: SignWorld | None = None
        self._problem: int | None = None
        self._exploring = False
        self._over = True

    def problem_ids(self, split: str) -> list[int]:
        """
        The problems of a split: the three colours in both.

        :param split: ``"train"`` or ``"test"``
        :return: their IDs, in increasing order
        """
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        return list(range(self.n_problems))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """
        Start an episode. The first one opens the window, in the process that draws.

        :param seed: seed of the generator that draws problems, instructions and places. With both of the others given,
            it draws the places that MiniWorld draws from this seed
        :param options: ``problem_id`` (absent: the current problem stays; the first one is drawn), ``exploring``
            (default False) and ``instruction`` (its index; absent or None: drawn). An exploration episode has none
        :return: the first observation, and an empty info
        :raises RuntimeError: if MiniWorld or OpenGL is missing
        """
        super().reset(seed=seed)
        problem, exploring, instruction = read_options(options, self.n_problems, self.n_instructions)
        if self._world is None:
            self._world = load_world(self.n_instructions)
        if problem is not None:
            self._problem = problem
        elif seed is not None or self._problem is None:
            # After a seed one number is always drawn, used or not, so that equal seeds leave equal generators.
            drawn = int(self.np_random.integers(self.n_problems))
            self._problem = drawn if self._problem is None else self._problem
        if instruction is None and not exploring:
            instruction = int(self.np_random.integers(self.n_instructions))
        self._instruction = instruction
        self._instruction_vector = np.zeros(self.n_instructions, np.float32)
        if instruction is not None:
            self._instruction_vector[instruction] = 1.0
        self._exploring, self._over, self._reward = exploring, False, 0.0
        image = self._world.begin(self.np_random, self._problem, instruction)
        self._path = [self._world.agent.pos]
        return self._observe(image), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """
        Take one action.

        :param action: the action, an integer in ``action_space``
        :return: observation, reward, terminated, truncated (20 steps are over), and an empty info
        """
        if not 0 <= action < N_ACTIONS or action != int(action):
            raise ValueError(f"action must be an integer in 0..{N_ACTIONS - 1}, not {action!r}")
        if self._over or self._world is None:
            raise ResetNeeded("the episode is over or was never started: call reset() before step()")
        state, reward, terminated, truncated, _ = self._world.step(int(action))
        self._over = terminated or truncated
        self._reward = 0.0 if self._exploring else float(reward)
        self._path.append(self._world.agent.pos)
        return self._observe(state["obs"]), self._reward, terminated, truncated, {}

    def _observe(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {"observation": image, "instruction": self._instruction_vector.copy()}

    def close(self) -> None:
        """Let go of the world. What all worlds of a process share (one window, the textures) stays until the process ends."""
        self._world = None
        self._over = True

    def render(self) -> np.ndarray | None:
        """
        Draw what is going on, for people: what the agent sees beside the rooms from above, and where it has walked.

        :return: the frame (height, width, 3) as uint8, or None without a render mode
        """
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing unless the environment is made with render_mode='rgb_array'")
            return None
        if self._world is None or self._problem is None:
            raise ResetNeeded("there is nothing to draw yet: call reset() before render()")
        return draw_episode(self._world, self._path, self._exploring, self._over, self._reward, self.caption)

    def optimal_return(self, problem_id: int) -> float:
        """
        The best return of one execution episode with the problem known: every object is within reach from every start.

        :param problem_id: the problem ID
        :return: 1
        """
        read_options({"problem_id": problem_id}, self.n_problems, self.n_instructions)
        return 1.0

    def no_exploration_return(self) -> float:
        """
        The best expected return of one execution episode for an agent that has not explored, but may read the sign on its
        way: a planner found such a way from each of 200 random starts (tests/test_sign_limits.py plays some of them).

        :return: 1
        """
        return 1.0

    def describe_exploration(
        self, problem_ids: np.ndarray, observations: list[np.ndarray], actions: list[np.ndarray]
    ) -> dict[str, float]:
        """
        What was explored, in figures. The sign counts as seen if in one of the frames at least ``SIGN_PIXELS`` pixels are its
        board's, which is told by their colour.

        :param problem_ids: (P,)
        :param observations: while exploring, of each of the P trials: images (n, 60, 80, 3), or channels first
        :param actions: of each of them
        :return: ``sign_in_view``, the share of trials in which the sign was in view at least once
        """
        return {"sign_in_view": float(np.mean([(sign_pixels(images) >= SIGN_PIXELS).any() for images in observations]))}


def sign_pixels(images: np.ndarray) -> np.ndarray:
    """
    :param images: (n, 60, 80, 3) or (n, 3, 60, 80), uint8
    :return: (n,), how many pixels of each show the sign's board. Letters and the blurred edge do not count
    """
    # channel by channel: numpy's own minimum over an axis of three takes many times as long
    red, green, blue = np.moveaxis(images, 1 if images.shape[1] == 3 else 3, 0)
    lowest, highest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return ((lowest >= PALE) & (highest - lowest <= COLOURLESS)).sum(axis=(1, 2))


def load_world(n_shapes: int = 2) -> "SignWorld":
    """
    Open a world without a screen. MiniWorld and pyglet are imported here and nowhere else: without OpenGL they cannot be.

    :param n_shapes: 2, or 3 with balls
    :return: the world
    :raises RuntimeError: if MiniWorld or OpenGL is missing
    """
    # Mesa's software renderer would start a thread for each core; for frames of this size they cost more than they bring
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        import pyglet  # noqa: PLC0415

        if "pyglet.gl" not in sys.modules:
            pyglet.options["headless"] = sys.platform == "linux"  # through EGL, which other systems do not have
            pyglet.options["debug_gl"] = False  # it asks for errors after each call
        from sb3_dream.envs.sign_world import open_world  # noqa: PLC0415

        return open_world(n_shapes)
    except ModuleNotFoundError as error:
        raise RuntimeError(f"MetaSign-v0 needs MiniWorld: pip install miniworld ({error})") from error
    except RuntimeError:  # of open_world: it says what to do
        raise
    except Exception as error:
        # pyglet has an error of its own for each way in which OpenGL, FreeType or fontconfig can be missing
        raise RuntimeError(f"MetaSign-v0 needs OpenGL: apt-get install {GL_PACKAGES} ({error})") from error
