"""Where results go, and what is written beside them so that they can be repeated."""

import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import stable_baselines3
import torch as th

import sb3_dream

RESULTS = Path(__file__).parent / "results"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()


def describe_source(module: str) -> dict[str, Any]:
    """
    :param module: that runs, e.g. ``benchmarks.run``
    :return: what repeats a result: the command and the commit, and whether something was changed since
    """
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--", "../sb3_dream", "*.py", "hyperparams")),
    }


def describe_versions() -> dict[str, str]:
    """:return: of what a result depends on"""
    return {
        "python": platform.python_version(),
        "sb3_dream": sb3_dream.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "torch": th.__version__,
    }
