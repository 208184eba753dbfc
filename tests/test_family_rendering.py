"""Frames: whatever a person needs to see must change the picture."""

import numpy as np
import pytest
from PIL import ImageColor

from sb3_dream.envs.bandit import BanditEnv
from sb3_dream.envs.bus import BusEnv
from sb3_dream.envs.cooking import CookingEnv
from sb3_dream.envs.distracting_bus import DistractingBusEnv
from sb3_dream.envs.drawing import COLOURS, PANEL, Picture
from sb3_dream.envs.map import MapEnv
from sb3_dream.envs.sign import SHAPES, SignEnv

FAMILIES = [BusEnv, DistractingBusEnv, MapEnv, CookingEnv, BanditEnv, SignEnv]


def frame(family, actions=(), caption="", **options):
    """The frame after some actions."""
    env = family(render_mode="rgb_array")
    env.reset(seed=0, options={"problem_id": 1, **options})
    env.caption = caption
    for action in actions:
        env.step(action)
    return env.render()


def cell_of(picture, cell):
    """The pixels of a cell of a 9x9 grid."""
    left, top, right, bottom = (round(edge / 2) for edge in Picture(9, 9).box(cell, 0.9))
    return picture[top:bottom, left:right].reshape(-1, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_are_what_video_writers_take(family):
    """Otherwise ``RecordVideo`` and SB3's ``VecVideoRecorder`` fail, or encoders refuse the odd size."""
    picture = frame(family)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert picture.shape[0] % 16 == picture.shape[1] % 16 == 0
    assert family.metadata["render_fps"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_panel_tells_phase_progress_and_caption(family):
    """Otherwise a viewer of a video cannot tell exploring from executing, or one episode from the next."""
    panels = [
        frame(family, exploring=True),
        frame(family),
        frame(family, [1]),
        frame(family, caption="execution episode 1 of 2"),
        frame(family, problem_id=0),
    ]
    distinct = {panel[:PANEL].tobytes() for panel in panels}
    assert len(distinct) == len(panels)


@pytest.mark.parametrize(
    ("family", "first", "second"),
    [
        (BusEnv, {"actions": [0]}, {"actions": [1]}),
        (BusEnv, {"instruction": 0}, {"instruction": 1}),
        (BusEnv, {"problem_id": 0}, {"problem_id": 1}),
        (DistractingBusEnv, {"problem_id": 0}, {"problem_id": 24}),
        (MapEnv, {"actions": [2, 2, 2]}, {"actions": [2, 2, 2, 3]}),
        (CookingEnv, {"actions": [2]}, {"actions": [2, 7]}),
        (CookingEnv, {"actions": [2, 7, 0]}, {"actions": [2, 7, 0, 8]}),
        (CookingEnv, {"problem_id": 0}, {"problem_id": 1}),
        (BanditEnv, {"actions": [3]}, {"actions": [4]}),
        (BanditEnv, {"problem_id": 0}, {"problem_id": 1}),
    ],
)
def test_the_grid_shows_what_differs(family, first, second):
    """Otherwise two different situations look the same."""
    one, other = frame(family, **{"exploring": "instruction" not in first, **first}), frame(
        family, **{"exploring": "instruction" not in second, **second}
    )
    assert (one[PANEL:] != other[PANEL:]).any()


@pytest.mark.usefixtures("gl")
@pytest.mark.parametrize("shapes", [SHAPES[:2], SHAPES])
def test_a_frame_of_the_sign_family_shows_what_differs(shapes):
    """Otherwise a viewer cannot tell where the agent has been, what the sign says or what is to be fetched."""
    env = SignEnv(shapes, render_mode="rgb_array")
    frames = []
    for problem in range(3):
        for instruction in (None, *range(len(shapes))):
            options = {"problem_id": problem, "exploring": instruction is None, "instruction": instruction}
            env.reset(seed=0, options=options)
            frames.append(env.render())
            env.step(0)
            frames.append(env.render())
    assert len({frame[PANEL:].tobytes() for frame in frames if frame is not None}) == 3 * 2 * (1 + len(shapes))


def test_stop_and_destination_have_the_colour_of_their_bus():
    """Otherwise a viewer cannot see where a bus goes."""
    picture = frame(BusEnv, exploring=True)
    stops, destinations = [(4, 5), (5, 4), (3, 4), (4, 3)], [(0, 1), (0, 7), (8, 7), (8, 1)]
    for stop, destination, colour in zip(stops, destinations, COLOURS, strict=True):
        for cell in (stop, destination):
            assert (cell_of(picture, cell) == ImageColor.getrgb(colour)).all(axis=1).mean() > 0.3


def test_the_recipe_is_written_in_the_panel():
    """Otherwise a viewer does not know what the cook is after."""
    recipes = [frame(CookingEnv, problem_id=36, instruction=instruction)[:PANEL].tobytes() for instruction in range(9)]
    assert len(set(recipes)) == 9


@pytest.mark.parametrize("family", FAMILIES)
def test_rendering_changes_nothing(family):
    """Otherwise a recorded run differs from the same run without a video."""
    plain, watched = family(), family(render_mode="rgb_array")
    for env in (plain, watched):
        env.reset(seed=3)
    watched.render()
    one, other = plain.step(1), watched.step(1)
    np.testing.assert_equal(one[0], other[0])
    assert one[1:] == other[1:]
    watched.render()
    np.testing.assert_equal(plain.reset()[0], watched.reset()[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_render_mode_nothing_is_drawn(family):
    """Otherwise training pays for frames that nobody asked for; silence would leave the user wondering."""
    env = family()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert env.render() is None


@pytest.mark.parametrize("n_arms", [2, 3, 50])
def test_any_number_of_arms_can_be_drawn(n_arms):
    """Otherwise rendering crashes for a bandit of another size."""
    env = BanditEnv(n_arms, render_mode="rgb_array")
    env.reset(options={"problem_id": 0})
    picture = env.render()
    assert picture is not None and picture[PANEL:].std() > 0
