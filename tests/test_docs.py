"""What the documentation says to type runs as it is printed: Python, commands and files."""

import importlib
import importlib.util
import re
import shlex
import sys
import warnings
from argparse import ArgumentParser
from functools import partialmethod
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecEnv

import sb3_dream
from sb3_dream import DREAM, RecurrentDQN, evaluate_problems

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/[!_]*/*.md")), "docs/index.md"]
#: what goes with the length of a run that is cut short
SHORTER = {"docs/guide/long_runs.md": {"save_freq=1_000": "save_freq=4", "320000": "64"}}
_N_STEPS, _N_PROBLEMS = 128, 4


def python_blocks(page: str) -> list[tuple[int, str]]:
    """Line number and code of each block."""
    text = (ROOT / page).read_text(encoding="utf8")
    for long, short in SHORTER.get(page, {}).items():
        assert long in text
        text = text.replace(long, short)
    return [
        (text[: block.start(1)].count("\n"), block[1]) for block in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)
    ]


def commands() -> list[tuple[str, str]]:
    """Page and text of each command, from ``bash`` blocks and from the lines of text."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf8")
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"(?<!`)`((?:python|make) [^`\n]+)`(?!`)", text)
        found += [(page, line) for line in lines if re.match(r"(python -m (benchmarks|sb3_dream)\.|make )", line)]
    return list(dict.fromkeys(found))


def learn_briefly(model: Any, learn: Any, total_timesteps: int, **kwargs: Any) -> Any:
    """Training, cut short."""
    if isinstance(model, RecurrentPPO):
        model.n_epochs = 1
    return learn(model, min(total_timesteps, _N_STEPS), **kwargs)


def evaluate_briefly(model: Any, env: Any, problem_ids: Any = None, **kwargs: Any) -> Any:
    """Evaluation on few problems."""
    if problem_ids is None:
        problem_ids, *_ = env.get_attr("problem_ids") if isinstance(env, VecEnv) else [env.problem_ids]
    return evaluate_problems(model, env, problem_ids[:_N_PROBLEMS], **kwargs)


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)])
def test_python_blocks(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What a newcomer copies must work. One page is one session; training and evaluation are cut short."""
    monkeypatch.chdir(tmp_path)
    for algorithm in (DREAM, RecurrentDQN, RecurrentPPO):
        monkeypatch.setattr(algorithm, "learn", partialmethod(learn_briefly, algorithm.learn))
    monkeypatch.setattr(sb3_dream, "evaluate_problems", evaluate_briefly)
    session: dict[str, Any] = {"__name__": "__main__"}
    for line, code in python_blocks(page):
        if "from carl" in code and importlib.util.find_spec("carl") is None:
            continue  # cannot be installed beside Gymnasium 1
        if "MetaSign" in code:
            request.getfixturevalue("gl")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            exec(compile("\n" * line + code, page, "exec"), session)
    for value in session.values():
        if isinstance(value, gym.Env | VecEnv):
            value.close()


def test_pages_are_found() -> None:
    """A glob that finds nothing would pass all tests."""
    assert {"README.md", "docs/index.md", "docs/guide/custom_env.md", "docs/modules/dream.md"} <= set(PAGES)
    assert len(commands()) > 10


class _ParsedError(Exception):
    """Ends a command after its options have been read."""


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: value.split("/")[-1])
def test_commands(page: str, command: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A module, option or target that is not there. The commands themselves are run elsewhere (test_benchmarks.py)."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.M))
        assert {word for word in words[1:] if "=" not in word} <= targets
        return
    module = request.getfixturevalue("zoo") if words[2] == "sb3_dream.zoo" else importlib.import_module(words[2])
    if len(words) == 3 and page == "docs/guide/zoo.md":
        return  # named in the text, without what has to follow
    parse_args = ArgumentParser.parse_args

    def parse_only(parser: ArgumentParser, *args: Any, **kwargs: Any) -> None:
        parse_args(parser, *args, **kwargs)
        raise _ParsedError

    monkeypatch.setattr(ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", words[2:])
    with pytest.raises(_ParsedError):
        module.main()


def test_files_that_the_readme_names() -> None:
    """A picture that was renamed shows as a broken one."""
    text = (ROOT / "README.md").read_text(encoding="utf8")
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
