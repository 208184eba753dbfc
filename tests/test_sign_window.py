"""The sign family's window: opened late and once, in the process that draws, and explained where it cannot be opened."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_dream.envs.sign import GL_PACKAGES, SignEnv

STATM = Path("/proc/self/statm")


def run(program: str) -> subprocess.CompletedProcess[str]:
    """A program in a Python of its own."""
    root = Path(__file__).parent.parent
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False)


def resident_megabytes() -> float:
    """What this process holds in memory."""
    gc.collect()
    return int(STATM.read_text(encoding="utf8").split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def test_nothing_is_imported_before_the_first_episode() -> None:
    """Otherwise `import sb3_dream` fails for everybody who has no OpenGL, and environments cannot be made to be sent away."""
    program = """
import sys
import gymnasium as gym
import sb3_dream
env = gym.make("MetaSign-v0")
print(sorted({name.split(".")[0] for name in sys.modules} & {"miniworld", "pyglet"}))
"""
    result = run(program)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.usefixtures("gl")
@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        ('pyglet.lib.load_library = lambda *names, **_: raise_(ImportError(f"Library {names[0]!r} not found."))', GL_PACKAGES),
        (
            "load = pyglet.lib.load_library; "
            "pyglet.lib.load_library = lambda name, *others, **_: "
            'raise_(ImportError("none")) if name == "freetype" else load(name, *others, **_)',
            "libfreetype6",
        ),
        ('os.environ["__EGL_VENDOR_LIBRARY_FILENAMES"] = "/nowhere.json"', GL_PACKAGES),
        ('sys.modules["miniworld"] = None', "pip install miniworld"),
    ],
)
def test_what_is_missing_is_named_in_one_line(breaking: str, message: str) -> None:
    """Otherwise a user reads a stack of pyglet's frames, and none of them says what to install."""
    program = f"""
import os, sys, warnings
import pyglet, pyglet.lib
from sb3_dream.envs.sign import SignEnv

def raise_(error):
    raise error

{breaking}
warnings.simplefilter("ignore")
try:
    SignEnv().reset(seed=0)
except RuntimeError as error:
    print(error)
"""
    result = run(program)
    (line,) = result.stdout.splitlines()
    assert "MetaSign-v0 needs" in line and message in line


@pytest.mark.usefixtures("gl")
def test_worker_processes_see_what_one_process_sees() -> None:
    """Otherwise the window does not come up in a worker, or it shows something else there."""
    frames = []
    for vec_env_class in (DummyVecEnv, SubprocVecEnv):
        env = make_vec_env("sb3_dream:MetaSign-v0", n_envs=2, seed=3, vec_env_cls=vec_env_class)
        observation: Any = env.reset()
        frames.append([observation["observation"]])
        for action in (2, 0, 2, 1):
            observation, *_ = env.step(np.full(2, action))
            frames[-1].append(observation["observation"])
        env.close()
    np.testing.assert_array_equal(frames[0], frames[1])


@pytest.mark.usefixtures("gl")
def test_a_forked_process_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it waits for ever for threads of the graphics driver that are not there any more."""
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="start_method='forkserver'"):
        SignEnv().reset(seed=0)


@pytest.mark.usefixtures("gl")
def test_one_window_for_all_environments_and_nothing_left_after_closing() -> None:
    """Otherwise sixteen environments in one process take gigabytes, and each closed one leaves some behind."""
    from pyglet import app, gl  # noqa: PLC0415

    n_windows = len(app.windows)
    envs = [SignEnv() for _ in range(5)]
    for env in envs:
        env.reset(seed=0)
    worlds = [env._world for env in envs if env._world is not None]
    lists = {world.objects_list for world in worlds}
    assert len(app.windows) == n_windows
    assert len(lists) == len(worlds) == 5
    assert all(gl.glIsList(each) for each in lists)
    for env in envs:
        env.close()
    del worlds
    gc.collect()
    assert not any(gl.glIsList(each) for each in lists)
    envs[0].reset(seed=0)  # a closed one can be used again
    assert envs[0].step(0)[0]["observation"].any()


@pytest.mark.usefixtures("gl")
@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
def test_memory_does_not_grow_with_resets_or_environments() -> None:
    """Otherwise a long run ends for want of memory. (10,000 resets, run by hand, added 0.0 MB.)"""
    env = SignEnv()

    def use(n_resets: int, n_envs: int) -> None:
        for _ in range(n_resets):
            env.reset()
            env.step(2)
        for _ in range(n_envs):
            other = SignEnv()
            other.reset()
            other.close()

    env.reset(seed=0)
    use(200, 20)
    before = resident_megabytes()
    use(600, 60)
    assert resident_megabytes() - before < 2.0
