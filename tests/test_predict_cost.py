"""A call of predict costs about as much as RecurrentPPO's."""

import sys

import pytest

from benchmarks import predict
from benchmarks.predict import ENV_ID, make_models, make_observation, seconds_of_calls


@pytest.mark.parametrize("exploring", [True, False])
def test_predict_costs_at_most_one_and_a_half_times_recurrent_ppo(exploring: bool) -> None:
    """People step DREAM one observation at a time, in demos and on robots. It once took twice as long, all for switching
    eight networks to evaluation mode. The fastest of many calls is hardly disturbed by what else the machine does."""
    models, observation = make_models(), make_observation(ENV_ID, 1, exploring)
    ratio = float("inf")
    for _ in range(3):
        dream, rival = seconds_of_calls(models, observation, n_calls=100).min(axis=0)
        ratio = min(ratio, dream / rival)
        if ratio < 1.5:
            break
    assert ratio < 1.5


def test_the_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints both phases, for one environment and for many."""
    monkeypatch.setattr(sys, "argv", ["predict", "--n-calls", "5"])
    predict.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[n, phase] for n in ("1", "64") for phase in ("exploring", "executing")]
    assert all(float(row[-1]) > 0 for row in rows)
