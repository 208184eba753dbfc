"""How networks see sequences of steps, and what they remember of them. Sequences are time-major: (T, B, ...)."""

from abc import abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn import functional as F

#: What an encoder remembers: an LSTM's hidden and cell state, each (n_layers, B, width), or what the next transition needs of
#: this step, (1, B, width), and nothing; and the peak of its outputs so far, (1, B, width).
Memory = tuple[th.Tensor, th.Tensor, th.Tensor]


def pack(padded: th.Tensor, index: th.Tensor | None) -> th.Tensor:
    """
    :param padded: (T, B, *shape)
    :param index: (n,), the places that are kept of the flattened (T, B); None for all
    :return: (n, *shape)
    """
    flat = padded.flatten(0, 1)
    return flat if index is None else flat.index_select(0, index)  # several times faster than flat[index]


def pack_flat(padded: th.Tensor, index: th.Tensor | None) -> th.Tensor:
    """
    :param padded: (T, B, *shape), of any type
    :param index: as in ``pack``
    :return: (n, d), float32: what can stand beside features
    """
    packed = pack(padded, index).float()
    return packed.reshape(len(packed), -1)


@dataclass(frozen=True)
class Steps:
    """
    The steps of B sequences, without their padding: all that is done step by step runs on these n rows in one call, and
    only an LSTM sees the padded (T, B).
    """

    #: what the features extractor is given, preprocessed: (n, *shape), or a dict of them
    observations: PyTorchObs
    #: (n, d): what stands beside its features (previous action and reward)
    feedback: th.Tensor
    #: (T, B)
    shape: tuple[int, int]
    #: (n,), the place of each row in the flattened (T, B); None if nothing is padding
    index: th.Tensor | None = None
    #: of each extractor that has seen the steps
    _features: dict[BaseFeaturesExtractor, th.Tensor] = field(default_factory=dict)

    def features(self, extractor: BaseFeaturesExtractor) -> th.Tensor:
        """(n, features_dim). Networks that share an extractor share its work: a frame goes through it once."""
        if extractor not in self._features:
            self._features[extractor] = extractor(self.observations)
        return self._features[extractor]

    def pack(self, padded: th.Tensor) -> th.Tensor:
        """(T, B, d) → (n, d)."""
        return pack(padded, self.index)

    def pad(self, packed: th.Tensor) -> th.Tensor:
        """(n, d) → (T, B, d), zeros where there is padding."""
        if self.index is None:
            return packed.view(*self.shape, -1)
        n_steps, n_batch = self.shape
        padded = packed.new_zeros(n_steps * n_batch, packed.shape[-1])
        return padded.index_copy_(0, self.index, packed).view(n_steps, n_batch, -1)

    def spread(self, per_sequence: th.Tensor) -> th.Tensor:
        """(B, d) → (n, d): what holds for a whole sequence, at each of its steps."""
        # each place is picked once at most, so that the gradient is a sum over time, which is the same every time on GPUs too
        return self.pack(per_sequence.expand(self.shape[0], *per_sequence.shape))


def sum_in_steps(values: th.Tensor, goes_on: th.Tensor) -> th.Tensor:
    """
    :param values: (T, ...)
    :param goes_on: (T - 1, ...), 1 where what a step sums goes on into the next step, else 0
    :return: (T, ...), for each step the sum of its value and those after it that it goes on into, added one by one
    """
    total = values.clone()
    for (now, before), link in zip(pairwise(reversed(total.unbind())), reversed(goes_on.unbind()), strict=True):
        before.addcmul_(now, link)
    return total


def sum_in_rounds(values: th.Tensor, goes_on: th.Tensor) -> th.Tensor:
    """As ``sum_in_steps``, in log2(T) rounds: each adds twice as many steps as the one before."""
    total, reach = values.clone(), 1
    while reach < len(values):
        total[:-reach] += goes_on * total[reach:]
        goes_on = goes_on[:-reach] * goes_on[reach:]
        reach *= 2
    return total


class RunningMax(th.autograd.Function):
    """
    The maximum so far along the first dimension. On a CPU, ``cummax`` with its indices takes four times as long as to go from
    step to step in place, and the learner waits for it several times in each update. On a GPU it is fast, but its gradients
    are added up in another order each time, so that no run is like the one before.
    """

    @staticmethod
    def forward(ctx: Any, inputs: th.Tensor) -> th.Tensor:
        """
        :param ctx: keeps what ``backward`` needs
        :param inputs: (T, ...)
        :return: (T, ...)
        """
        if inputs.is_cuda:
            peaks = inputs.cummax(dim=0).values
        else:
            peaks = inputs.clone()
            for before, now in pairwise(peaks.unbind()):
                th.maximum(before, now, out=now)
        ctx.save_for_backward(inputs, peaks)
        return peaks

    @staticmethod
    def backward(ctx: Any, grad: th.Tensor) -> th.Tensor:
        """
        :param ctx: from ``forward``
        :param grad: (T, ...), of the peaks
        :return: (T, ...): a step that has set a peak gets what this peak gets for as long as it lasts
        """
        inputs, peaks = ctx.saved_tensors
        lasts = (inputs[1:] <= peaks[:-1]).to(grad.dtype)  # the peak before
        total = (sum_in_rounds if grad.is_cuda else sum_in_steps)(grad, lasts)
        total[1:].addcmul_(total[1:], lasts, value=-1)  # it was not this step's own
        return total


class SequenceEncoder(nn.Module):
    """
    Features of every step, a layer with memory over them, and the peak of each of its outputs so far (AMRL-Max, Beck et al.
    2020). The output of step t has seen the steps up to t.

    :param features_extractor: from the observation of one step to features
    :param feedback_dim: width of what stands beside them
    :param width: of the layer with memory; 0 leaves it out, so that a step sees itself only
    :param memory_shapes: layers and width of the first two parts of its memory
    :param peaks_only: pass on nothing but the peaks. They do not depend on how much came between or in which order, so what
        is learned from single findings holds for several together
    :param peaks: whether there are peaks at all
    """

    def __init__(
        self,
        features_extractor: BaseFeaturesExtractor,
        feedback_dim: int,
        width: int,
        memory_shapes: tuple[tuple[int, int], tuple[int, int]],
        peaks_only: bool = False,
        peaks: bool = True,
    ):
        super().__init__()
        self.features_extractor = features_extractor
        self.width = width
        self.peaks_only = peaks_only
        self.peaks = peaks
        self.features_dim = int(features_extractor.features_dim) + feedback_dim
        self.output_dim = width if peaks_only else self.features_dim + (1 + peaks) * width
        self.memory_shapes = (*memory_shapes, (1, width))

    def initial_memory(self, n_batch: int, device: th.device) -> Memory:
        """
        :param n_batch: B
        :param device: where
        :return: the memory before the first step, all zeros
        """
        hidden, cell, peak = (th.zeros(layers, n_batch, width, device=device) for layers, width in self.memory_shapes)
        return hidden, cell, peak

    @abstractmethod
    def _remember(
        self, steps: Steps, features: th.Tensor, hidden: th.Tensor, cell: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """From the features (n, features_dim) to the layer's outputs (T, B, width) and the two parts of its memory."""

    def forward(self, steps: Steps, memory: Memory | None = None) -> tuple[th.Tensor, Memory]:
        """
        :param steps: the sequences
        :param memory: before the first step; zeros by default
        :return: (n, output_dim), and the memory after the last step
        """
        features = th.cat([steps.features(self.features_extractor), steps.feedback], dim=-1)
        hidden, cell, peak = memory or self.initial_memory(steps.shape[1], features.device)
        if self.width == 0:
            return features, (hidden, cell, peak)
        outputs, hidden, cell = self._remember(steps, features, hidden, cell)
        if not self.peaks:
            return th.cat([features, steps.pack(outputs)], dim=-1), (hidden, cell, peak)
        peaks = th.maximum(outputs if len(outputs) == 1 else RunningMax.apply(outputs), peak)
        memory = (hidden, cell, peaks[-1:])
        if self.peaks_only:
            return steps.pack(peaks), memory
        return th.cat([features, steps.pack(outputs), steps.pack(peaks)], dim=-1), memory


class LSTMEncoder(SequenceEncoder):
    """
    An LSTM.

    :param features_extractor: as of ``SequenceEncoder``
    :param feedback_dim: as there
    :param lstm_hidden_size: its width
    :param n_lstm_layers: its layers
    :param kwargs: of ``SequenceEncoder``
    """

    def __init__(
        self,
        features_extractor: BaseFeaturesExtractor,
        feedback_dim: int,
        lstm_hidden_size: int,
        n_lstm_layers: int,
        **kwargs: bool,
    ):
        shape = (n_lstm_layers, lstm_hidden_size)
        super().__init__(features_extractor, feedback_dim, lstm_hidden_size, (shape, shape), **kwargs)
        if lstm_hidden_size > 0:
            self.lstm = nn.LSTM(self.features_dim, lstm_hidden_size, num_layers=n_lstm_layers)

    def _remember(
        self, steps: Steps, features: th.Tensor, hidden: th.Tensor, cell: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        inputs = steps.pad(features)
        if len(inputs) == 1:
            return self._one_step(inputs, hidden, cell)
        outputs, (hidden, cell) = self.lstm(inputs, (hidden, cell))
        return outputs, hidden, cell

    def _one_step(self, inputs: th.Tensor, hidden: th.Tensor, cell: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Sequences of one step, as when acting: the LSTM's cells alone take a fourth of the time for one trial."""
        outputs, states = inputs[0], []
        for weights, before in zip(self.lstm.all_weights, zip(hidden, cell, strict=True), strict=True):
            states.append(th.lstm_cell(outputs, before, *weights))
            outputs = states[-1][0]
        hiddens, cells = zip(*states, strict=True)
        return outputs.unsqueeze(0), th.stack(hiddens), th.stack(cells)


class TransitionEncoder(SequenceEncoder):
    """
    One layer over every transition: a step and the one before. All steps are worked out at once, in a fraction of an LSTM's
    time. Beyond one step back, only the peaks remember: what has been found so far, whatever came between.

    :param features_extractor: as of ``SequenceEncoder``
    :param feedback_dim: as there
    :param width: as there
    :param kwargs: of ``SequenceEncoder``
    """

    def __init__(self, features_extractor: BaseFeaturesExtractor, feedback_dim: int, width: int, **kwargs: bool):
        super().__init__(features_extractor, feedback_dim, width, ((1, width), (1, 0)), **kwargs)
        # what a step says as the later one of a transition, and as the earlier one
        self.layer = nn.Linear(self.features_dim, 2 * width)

    def _remember(
        self, steps: Steps, features: th.Tensor, hidden: th.Tensor, cell: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        later, earlier = steps.pad(self.layer(features)).chunk(2, dim=-1)
        return F.relu(later + th.cat([hidden, earlier[:-1]])), earlier[-1:], cell
