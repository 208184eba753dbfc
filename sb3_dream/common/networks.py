"""The networks that algorithms on trials are made of. Sequences are time-major: (T, B, ...)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn import functional as F

#: Hidden and cell state of an LSTM, each (n_layers, B, hidden), and the peak of its output so far, (1, B, hidden).
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


class SequenceEncoder(nn.Module):
    """
    Features of every step, an LSTM over them, and the peak of each of its outputs so far (AMRL-Max, Beck et al. 2020). The
    output of step t has seen the steps up to t.

    :param features_extractor: from the observation of one step to features
    :param feedback_dim: width of what stands beside them
    :param lstm_hidden_size: width of the LSTM; 0 leaves it out, so that a step sees itself only
    :param n_lstm_layers: its layers
    :param peaks_only: pass on nothing but the peaks. They do not depend on how much came between or in which order, so what
        is learned from single findings holds for several together
    :param peaks: whether there are peaks at all
    """

    def __init__(
        self,
        features_extractor: BaseFeaturesExtractor,
        feedback_dim: int,
        lstm_hidden_size: int,
        n_lstm_layers: int,
        peaks_only: bool = False,
        peaks: bool = True,
    ):
        super().__init__()
        self.features_extractor = features_extractor
        self.peaks_only = peaks_only
        self.peaks = peaks
        features_dim = int(features_extractor.features_dim) + feedback_dim
        self.lstm = nn.LSTM(features_dim, lstm_hidden_size, num_layers=n_lstm_layers) if lstm_hidden_size > 0 else None
        self.output_dim = lstm_hidden_size if peaks_only else features_dim + (1 + peaks) * lstm_hidden_size
        #: layers and width of hidden state, cell state and peak
        self.memory_shapes = ((n_lstm_layers, lstm_hidden_size), (n_lstm_layers, lstm_hidden_size), (1, lstm_hidden_size))

    def initial_memory(self, n_batch: int, device: th.device) -> Memory:
        """
        :param n_batch: B
        :param device: where
        :return: the memory before the first step, all zeros
        """
        hidden, cell, peak = (th.zeros(layers, n_batch, width, device=device) for layers, width in self.memory_shapes)
        return hidden, cell, peak

    def forward(self, steps: Steps, memory: Memory | None = None) -> tuple[th.Tensor, Memory]:
        """
        :param steps: the sequences
        :param memory: before the first step; zeros by default
        :return: (n, output_dim), and the memory after the last step
        """
        features = th.cat([steps.features(self.features_extractor), steps.feedback], dim=-1)
        hidden, cell, peak = memory or self.initial_memory(steps.shape[1], features.device)
        if self.lstm is None:
            return features, (hidden, cell, peak)
        inputs = steps.pad(features)
        if len(inputs) == 1:
            outputs, hidden, cell = self._one_step(self.lstm, inputs, hidden, cell)
        else:
            outputs, (hidden, cell) = self.lstm(inputs, (hidden, cell))
        if not self.peaks:
            return th.cat([features, steps.pack(outputs)], dim=-1), (hidden, cell, peak)
        peaks = th.maximum(outputs if len(inputs) == 1 else outputs.cummax(dim=0).values, peak)
        memory = (hidden, cell, peaks[-1:])
        if self.peaks_only:
            return steps.pack(peaks), memory
        return th.cat([features, steps.pack(outputs), steps.pack(peaks)], dim=-1), memory

    @staticmethod
    def _one_step(
        lstm: nn.LSTM, inputs: th.Tensor, hidden: th.Tensor, cell: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """``lstm`` on sequences of one step, as when acting: its cells alone take a fourth of the time for one trial."""
        outputs, states = inputs[0], []
        for weights, before in zip(lstm.all_weights, zip(hidden, cell, strict=True), strict=True):
            states.append(th.lstm_cell(outputs, before, *weights))
            outputs = states[-1][0]
        hiddens, cells = zip(*states, strict=True)
        return outputs.unsqueeze(0), th.stack(hiddens), th.stack(cells)


class DuelingHead(nn.Module):
    """
    Dueling Q-values (Wang et al. 2016): Q(s, a) = V(s) + A(s, a) − mean_a' A(s, a').

    The mean is taken over the actions of one state, not over the batch.

    :param input_dim: width of the input
    :param n_actions: number of actions
    :param net_arch: hidden layers before the two streams part
    :param activation_fn: activation
    """

    def __init__(self, input_dim: int, n_actions: int, net_arch: Sequence[int], activation_fn: type[nn.Module]):
        super().__init__()
        self.body = nn.Sequential(*create_mlp(input_dim, -1, list(net_arch), activation_fn))
        self.streams = nn.Linear(net_arch[-1] if net_arch else input_dim, 1 + n_actions)

    def forward(self, inputs: th.Tensor, contexts: Sequence[th.Tensor] = ()) -> th.Tensor:
        """
        :param inputs: (n, input_dim), or without the context's part of it
        :param contexts: each (n, context_dim), which stands behind the inputs. What the first layer makes of the inputs is
            worked out once for all of them
        :return: Q-values (n, n_actions), those for each context after those for the one before
        """
        layers: list[Any] = [*self.body, self.streams]
        first, *others = layers
        n_own = inputs.shape[-1]
        outputs = F.linear(inputs, first.weight[:, :n_own], first.bias)
        if contexts:
            outputs = th.cat([outputs + F.linear(context, first.weight[:, n_own:]) for context in contexts])
        for layer in others:
            outputs = layer(outputs)
        value, advantage = outputs[..., :1], outputs[..., 1:]
        return value + advantage - advantage.mean(dim=-1, keepdim=True)


class RecurrentQNetwork(nn.Module):
    """
    Q^exp (φ) or Q^exe (θ): a recurrent dueling Q-network, given a context (the instruction and z) beside the sequence.

    :param encoder: encodes the episode so far
    :param context_dim: width of what comes beside it; 0 for Q^exp
    :param n_actions: number of actions
    :param net_arch: hidden layers of the head
    :param activation_fn: activation of the head
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        context_dim: int,
        n_actions: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
    ):
        super().__init__()
        self.encoder = encoder
        self.head = DuelingHead(encoder.output_dim + context_dim, n_actions, net_arch, activation_fn)

    def forward(
        self, steps: Steps, contexts: Sequence[th.Tensor] = (), memory: Memory | None = None
    ) -> tuple[tuple[th.Tensor, ...], Memory]:
        """
        :param steps: the sequences
        :param contexts: each (n, context_dim). The sequences are encoded once for all of them
        :param memory: before the first step
        :return: Q-values (T, B, n_actions) for each context (or once, without), and the memory after the last step
        """
        encoded, memory = self.encoder(steps, memory)
        q_values = self.head(encoded, contexts)
        return tuple(steps.pad(part) for part in q_values.chunk(max(len(contexts), 1))), memory


class TrajectoryDecoder(nn.Module):
    """
    g_ω: after each step of a trajectory, the guess of z.

    From an LSTM's last output alone the decoder has to learn every combination and order of findings anew. From the peaks
    of its outputs (``peaks_only``) it gets combinations that it has hardly seen, and with them exploration gets paid for
    the next finding: on the distracting bus no setting tried got past two buses (0.70) without it.

    :param encoder: encodes the trajectory so far
    :param embedding_dim: dimension of z
    :param net_arch: hidden layers
    :param activation_fn: activation
    """

    def __init__(self, encoder: SequenceEncoder, embedding_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module]):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(*create_mlp(encoder.output_dim, embedding_dim, list(net_arch), activation_fn))

    def forward(self, steps: Steps, memory: Memory | None = None) -> tuple[th.Tensor, Memory]:
        """
        :param steps: the trajectories
        :param memory: before the first step
        :return: guesses (T, B, embedding_dim): row t is g(τ_:t), which has seen observations 0 to t (row 0: no action
            yet, the empty prefix); and the memory after the last step
        """
        encoded, memory = self.encoder(steps, memory)
        return steps.pad(self.head(encoded)), memory


class ProblemEncoder(nn.Module):
    """
    f_ψ: problem ID → mean of z. An embedding table for Discrete (one each dimension, added, for MultiDiscrete), and an
    MLP for Box; then a linear layer.

    :param problem_space: the space of problem IDs
    :param embedding_dim: dimension of z
    :param hidden_dim: width of the table or of the MLP
    :param activation_fn: activation of the MLP
    """

    offsets: th.Tensor

    def __init__(self, problem_space: spaces.Space, embedding_dim: int, hidden_dim: int, activation_fn: type[nn.Module]):
        super().__init__()
        self.table: nn.Embedding | None = None
        if isinstance(problem_space, spaces.Discrete | spaces.MultiDiscrete):
            sizes = [int(problem_space.n)] if isinstance(problem_space, spaces.Discrete) else problem_space.nvec.tolist()
            self.table = nn.Embedding(sum(sizes), hidden_dim)
            starts = [sum(sizes[:place]) for place in range(len(sizes))]
            self.register_buffer("offsets", th.tensor(starts), persistent=False)
            self.net = nn.Sequential(nn.Linear(hidden_dim, embedding_dim))
        elif isinstance(problem_space, spaces.Box):
            self.net = nn.Sequential(
                *create_mlp(spaces.flatdim(problem_space), embedding_dim, [hidden_dim, hidden_dim], activation_fn)
            )
        else:
            raise ValueError(f"problem_space must be Discrete, MultiDiscrete or Box, got {problem_space}")

    def forward(self, problem_ids: th.Tensor) -> th.Tensor:
        """
        :param problem_ids: (B,) integers for Discrete, else (B, d)
        :return: (B, embedding_dim)
        """
        if self.table is None:
            return self.net(problem_ids.float().flatten(1))
        rows = problem_ids.long().view(len(problem_ids), -1) + self.offsets
        return self.net(self.table(rows).sum(dim=1))
