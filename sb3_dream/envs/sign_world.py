"""MiniWorld's Sign world, with one window for a whole process. It needs OpenGL: ``sign.py`` imports it when first used."""

import contextlib
import io
import os
import weakref
from functools import cache
from typing import Any

import numpy as np
from miniworld.entity import Agent, Ball, MeshEnt
from miniworld.envs.sign import Sign
from miniworld.objmesh import ObjMesh
from miniworld.opengl import FrameBuffer
from pyglet import gl

#: The balls that MiniWorld's world does not have, in the order of its colours: touching one is touching nothing else.
BALLS = (("blue", (9, 0, 8)), ("red", (7, 0, 12)), ("green", (3, 0, 12)))

#: The world that the others of a process are copies of, by process ID.
_first: dict[int, "SignWorld"] = {}


def open_world(n_shapes: int = 2) -> "SignWorld":
    """
    A world for one environment. All worlds of a process share one window, its buffers, and what never changes.

    :param n_shapes: 2 for MiniWorld's boxes and keys, 3 to add balls
    :return: the world; ``begin`` comes first
    :raises RuntimeError: in a process that was forked from one that had drawn before
    """
    if os.getpid() not in _first:
        if _first:
            raise RuntimeError(
                "MetaSign-v0 cannot draw in this process: it was forked from one that had drawn before, which OpenGL does not "
                "survive. Use SubprocVecEnv(..., start_method='forkserver') or 'spawn'"
            )
        with contextlib.redirect_stdout(io.StringIO()):  # MiniWorld prints that it takes fewer samples for a pixel
            _first[os.getpid()] = SignWorld(window_width=1, window_height=1)
    world = SignWorld.__new__(SignWorld)  # copy.copy would make another window, as MiniWorld's environments do when unpickled
    world.__dict__.update(_first[os.getpid()].__dict__, n_shapes=n_shapes)
    world.shadow_window.switch_to()
    world.objects_list = gl.glGenLists(1)
    weakref.finalize(world, gl.glDeleteLists, world.objects_list, 1).atexit = False
    return world


class SignWorld(Sign):
    """
    MiniWorld's Sign, equal to the pixel, for many environments in one process and with less work for each.

    MiniWorld opens a window for each environment, and calls the list of what does not move 1 in all of them; but windows share
    their lists, so that two environments in one process show each other's signs. Here there is one window. Rooms are built
    once, each colour's sign has a list with the rooms in it, and each environment a list for the objects of its episode.
    """

    n_shapes = 2
    objects_list = 0
    entities: list[Any]

    def add_rect_room(self, *args: Any, **kwargs: Any) -> Any:
        """As in MiniWorld, but once: the rooms are the same in every episode."""
        return None if len(self.wall_segs) else super().add_rect_room(*args, **kwargs)

    def connect_rooms(self, *args: Any, **kwargs: Any) -> None:
        """As in MiniWorld, but once."""
        if not len(self.wall_segs):
            super().connect_rooms(*args, **kwargs)

    def _render_static(self) -> None:
        """Compile lights, rooms and sign, for each colour. MiniWorld's constructor calls it, and nobody later."""
        self.sign_lists = gl.glGenLists(4) + 1  # the first may be list 1, which other MiniWorld environments write over
        lights = {
            gl.GL_POSITION: self.light_pos + 1,  # MiniWorld's `+ [1]` adds to each coordinate, and so must we
            gl.GL_AMBIENT: self.light_ambient,
            gl.GL_DIFFUSE: self.light_color,
        }
        for colour in range(3):
            self._color_index = colour
            self.entities = []
            self._gen_world()
            (sign,) = (entity for entity in self.entities if entity.is_static)
            sign.randomize(self.params, None)
            gl.glNewList(self.sign_lists + colour, gl.GL_COMPILE)
            for name, value in lights.items():
                gl.glLightfv(gl.GL_LIGHT0, name, (gl.GLfloat * 4)(*value))
            for feature in (gl.GL_LIGHTING, gl.GL_LIGHT0, gl.GL_COLOR_MATERIAL, gl.GL_TEXTURE_2D):
                gl.glEnable(feature)
            gl.glShadeModel(gl.GL_SMOOTH)
            gl.glColorMaterial(gl.GL_FRONT_AND_BACK, gl.GL_AMBIENT_AND_DIFFUSE)
            for room in self.rooms:
                room._render()
            sign.render()
            gl.glEndList()

    def begin(self, np_random: np.random.Generator, colour: int, goal: int | None) -> np.ndarray:
        """
        Start an episode: MiniWorld's ``reset`` without what stays the same.

        :param np_random: draws how the objects are turned, and where the agent stands; as many numbers as in MiniWorld
        :param colour: of the sign: 0 blue, 1 red, 2 green
        :param goal: the shape to touch: 0 box, 1 key, 2 ball, or None
        :return: what the agent sees, (60, 80, 3), uint8
        """
        self.np_random = np_random
        self._color_index, self._goal, self.step_count = colour, goal, 0
        self.agent, self.entities = Agent(), []
        self._gen_world()
        if self.n_shapes == 3:
            self._objects.append(tuple(self.place_entity(Ball(name), pos=pos) for name, pos in BALLS))
        self.shadow_window.switch_to()
        objects = [entity for group in self._objects for entity in group]
        for entity in [*objects, self.agent]:
            entity.randomize(self.params, None)
            if isinstance(entity, MeshEnt):
                entity.mesh = _compiled(entity.mesh)
        gl.glNewList(self.objects_list, gl.GL_COMPILE)
        for entity in objects:
            entity.render()
        gl.glEndList()
        return self.render_obs()

    def _render_world(self, frame_buffer: FrameBuffer, render_agent: bool) -> np.ndarray:
        gl.glCallList(self.sign_lists + self._color_index)
        gl.glCallList(self.objects_list)
        return frame_buffer.resolve()

    def first_person(self, size: tuple[int, int]) -> np.ndarray:
        """
        What the agent sees, in a finer picture for people.

        :param size: its width and height in pixels
        :return: (height, width, 3), uint8
        """
        self.shadow_window.switch_to()
        return self.render_obs(_view_buffer(size))


class _MeshList:
    """A mesh in a list: a ball has 15,576 corners, too many to hand over in every episode."""

    def __init__(self, mesh: ObjMesh):
        self.name = gl.glGenLists(1)
        gl.glNewList(self.name, gl.GL_COMPILE)
        mesh.render()
        gl.glEndList()

    def render(self) -> None:
        gl.glCallList(self.name)


_compiled = cache(_MeshList)


@cache
def _view_buffer(size: tuple[int, int]) -> FrameBuffer:
    with contextlib.redirect_stdout(io.StringIO()):
        return FrameBuffer(*size, 16)
