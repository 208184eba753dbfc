"""A frame of the sign family: what the agent sees, and beside it the rooms from above."""

from collections.abc import Sequence
from math import cos, pi, sin
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sb3_dream.envs.drawing import GOLD, INK, MARGIN, PANEL, SMOOTH, Frame

if TYPE_CHECKING:
    from sb3_dream.envs.sign_world import SignWorld

WIDTH, HEIGHT = 800, 512
TOP = PANEL + 10
VIEW = (450, 338)
SCALE = 26  # pixels for a metre, seen from above
LEFT = WIDTH - MARGIN - 10 * SCALE  # of the rooms
HALF_VIEW = 37.6 / 180 * pi  # of the horizontal field of view
FLOOR, WALL, PATH = "#eceae3", "#55524a", "#7a7a7a"
INKS = {"blue": "#1446c8", "red": "#cc1414", "green": "#0f8a28"}
COLOURS, SHAPES = tuple(INKS), ("box", "key", "ball")

Point = tuple[float, float]


class SignPicture(Frame):
    """
    A frame with the rooms at the right. Points are MiniWorld's (x, z) in metres, z downwards.
    """

    def __init__(self) -> None:
        super().__init__(WIDTH, HEIGHT)

    def at(self, *points: Point) -> list[Point]:
        """
        :param points: in metres
        :return: in pixels of the large image
        """
        return [((LEFT + SCALE * x) * SMOOTH, (TOP + SCALE * z) * SMOOTH) for x, z in points]

    def disc(self, point: Point, radius: float, fill: str | None, outline: str | None = None, line: int = 1) -> None:
        """
        :param point: its middle
        :param radius: in metres
        :param fill: colour
        :param outline: colour of its edge
        :param line: how thick the edge is, in pixels
        """
        x, z = point
        self.pen.ellipse(self.at((x - radius, z - radius), (x + radius, z + radius)), fill, outline, line * SMOOTH)

    def shape(self, name: str, point: Point, colour: str) -> None:
        """
        An object.

        :param name: box, key or ball
        :param point: where it stands
        :param colour: its ink
        """
        x, z = point
        if name == "box":
            self.pen.rectangle(self.at((x - 0.4, z - 0.4), (x + 0.4, z + 0.4)), colour)
        elif name == "ball":
            self.disc(point, 0.42, colour)
        else:
            self.disc((x - 0.25, z), 0.26, None, colour, 4)
            for start, end in (
                ((x, z), (x + 0.65, z)),
                ((x + 0.4, z), (x + 0.4, z + 0.3)),
                ((x + 0.6, z), (x + 0.6, z + 0.3)),
            ):
                self.pen.line(self.at(start, end), colour, 4 * SMOOTH)


def draw_episode(
    world: "SignWorld", path: Sequence[Any], exploring: bool, over: bool, reward: float, caption: str
) -> np.ndarray:
    """
    :param world: in the state to draw
    :param path: where the agent has been, each (x, y, z), the last one being where it is
    :param exploring: whether this is an exploration episode
    :param over: whether it is over
    :param reward: of the last step; no other step of an episode has any
    :param caption: where in the trial it stands, or nothing
    :return: the frame (height, width, 3), uint8
    """
    picture = SignPicture()
    view = Image.fromarray(world.first_person(VIEW)).resize((VIEW[0] * SMOOTH, VIEW[1] * SMOOTH))
    picture.image.paste(view, (MARGIN * SMOOTH, TOP * SMOOTH))

    colour = COLOURS[world._color_index]
    picture.pen.rectangle(picture.at((0, 0), (10, 13)), FLOOR)
    if world._goal is not None:
        x, _, z = world._objects[world._goal][world._color_index].pos
        picture.disc((x, z), 0.85, GOLD)
    for name, objects in zip(SHAPES, world._objects, strict=False):
        for ink, entity in zip(INKS.values(), objects, strict=True):
            picture.shape(name, (entity.pos[0], entity.pos[2]), ink)
    (board,) = (entity for entity in world.entities if entity.is_static)
    x, _, z = board.pos
    half = len(colour) / 2  # a metre for each letter
    picture.pen.line(picture.at((x - 0.12, z - half), (x - 0.12, z + half)), INKS[colour], 6 * SMOOTH)
    picture.write(LEFT + SCALE * (x - 0.5), TOP + SCALE * z, colour.upper(), 16, INKS[colour], "rm")
    for start, end in world.wall_segs:
        picture.pen.line(picture.at((start[0], start[2]), (end[0], end[2])), WALL, 3 * SMOOTH)

    steps = [(point[0], point[2]) for point in path]
    picture.pen.line(picture.at(*steps), PATH, 2 * SMOOTH)
    for step in steps:
        picture.disc(step, 0.09, PATH)
    (x, z), turn = steps[-1], world.agent.dir
    for side in (-HALF_VIEW, HALF_VIEW):
        picture.pen.line(picture.at((x, z), (x + 1.6 * cos(turn + side), z - 1.6 * sin(turn + side))), PATH, SMOOTH)
    corners = [(x + 0.5 * cos(turn + side), z - 0.5 * sin(turn + side)) for side in (0, 2.5, -2.5)]
    picture.pen.polygon(picture.at(*corners), INK)

    goal = "no goal while exploring" if world._goal is None else f"goal: the {SHAPES[world._goal]} of the sign's colour"
    task = f"problem {world._color_index}: the sign says {colour.upper()}     {goal}"
    left = 0 if over else world.max_episode_steps - world.step_count
    picture.panel(exploring, left, world.max_episode_steps, caption, reward, reward, task)
    picture.foot(
        ["left: what the agent sees, in 80 x 60 pixels     right: the rooms from above, and the way it has walked"]
        + ["yellow: the object to touch"] * (not exploring)
    )
    return picture.array()
