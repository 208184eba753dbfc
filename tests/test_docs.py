"""The Python of the documentation runs as it is printed."""

import importlib.util
import re
import warnings
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from sb3_contrib import RecurrentPPO

from sb3_dream import DREAM

GUIDE = Path(__file__).parents[1] / "docs" / "guide"


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Line number and code of each block."""
    text = page.read_text(encoding="utf8")
    return [
        (text[: block.start(1)].count("\n"), block[1]) for block in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)
    ]


def learn_briefly(model: Any, learn: Any, total_timesteps: int, **kwargs: Any) -> Any:
    """Training, cut short."""
    if isinstance(model, RecurrentPPO):
        model.n_epochs = 1
    return learn(model, min(total_timesteps, 128), **kwargs)


@pytest.mark.parametrize("page", ["custom_env.md", "pictures.md"])
def test_python_blocks(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a newcomer copies must work. One page is one session; training is cut short."""
    monkeypatch.chdir(tmp_path)
    for algorithm in (DREAM, RecurrentPPO):
        monkeypatch.setattr(algorithm, "learn", partialmethod(learn_briefly, algorithm.learn))
    blocks = python_blocks(GUIDE / page)
    assert blocks
    session: dict[str, Any] = {}
    for line, code in blocks:
        if "from carl" in code and importlib.util.find_spec("carl") is None:
            continue  # cannot be installed beside Gymnasium 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            exec(compile("\n" * line + code, page, "exec"), session)
