"""The networks that algorithms on trials are made of. Sequences are time-major: (T, B, ...)."""

from collections.abc import Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn
from torch.nn import functional as F

from sb3_dream.common.encoders import Memory, SequenceEncoder, Steps


class DuelingHead(nn.Module):
    """
    Dueling Q-values (Wang et al. 2016): Q(s, a) = V(s) + A(s, a) − mean_a' A(s, a').

    The mean is taken over the actions of one state, not over the batch.

    :param input_dim: width of the input
    :param n_actions: number of actions
    :param net_arch: hidden layers before the two streams part
    :param activation_fn: activation
    :param gate_dim: width of a context that multiplies what the first layer makes of the inputs, instead of adding to it;
        0 for none
    """

    def __init__(
        self, input_dim: int, n_actions: int, net_arch: Sequence[int], activation_fn: type[nn.Module], gate_dim: int = 0
    ):
        super().__init__()
        self.body = nn.Sequential(*create_mlp(input_dim, -1, list(net_arch), activation_fn))
        self.streams = nn.Linear(net_arch[-1] if net_arch else input_dim, 1 + n_actions)
        self.gate = nn.Linear(gate_dim, net_arch[0] if net_arch else 1 + n_actions) if gate_dim else None

    def forward(self, inputs: th.Tensor, contexts: Sequence[th.Tensor] = ()) -> th.Tensor:
        """
        :param inputs: (n, input_dim), or without the context's part of it
        :param contexts: each (n, context_dim), which stands behind the inputs, or is the gate's. What the first layer makes of
            the inputs is worked out once for all of them
        :return: Q-values (n, n_actions), those for each context after those for the one before
        """
        layers: list[Any] = [*self.body, self.streams]
        first, *others = layers
        n_own = inputs.shape[-1]
        outputs = F.linear(inputs, first.weight[:, :n_own], first.bias)
        if self.gate is not None:
            outputs = th.cat([outputs * self.gate(context) for context in contexts])
        elif contexts:
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
    :param gated: whether the context multiplies what the head's first layer makes of the sequence, instead of adding to it
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        context_dim: int,
        n_actions: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        gated: bool = False,
    ):
        super().__init__()
        self.encoder = encoder
        beside, gate_dim = (0, context_dim) if gated else (context_dim, 0)
        self.head = DuelingHead(encoder.output_dim + beside, n_actions, net_arch, activation_fn, gate_dim)

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


#: of a table of problems; a million of 32 floats, its target and its optimizer take half a gigabyte
_MOST_ROWS = 1_000_000


class ProblemEncoder(nn.Module):
    """
    f_ψ: problem ID → mean of z. An embedding table for Discrete (one each dimension, added, for MultiDiscrete), and an
    MLP for Box; then a linear layer.

    :param problem_space: the space of problem IDs
    :param embedding_dim: dimension of z
    :param hidden_dim: width of the table or of the MLP
    :param activation_fn: activation of the MLP
    :param centered: whether the mean over all IDs of the space is taken out of f
    :raises ValueError: if the space is of another kind or has more than a million IDs to count, or ``centered`` and a Box
    """

    offsets: th.Tensor

    def __init__(
        self,
        problem_space: spaces.Space,
        embedding_dim: int,
        hidden_dim: int,
        activation_fn: type[nn.Module],
        centered: bool = False,
    ):
        super().__init__()
        self.table: nn.Embedding | None = None
        self._centered_sizes: list[int] | None = None
        if isinstance(problem_space, spaces.Discrete | spaces.MultiDiscrete):
            sizes = [int(problem_space.n)] if isinstance(problem_space, spaces.Discrete) else problem_space.nvec.tolist()
            if sum(sizes) > _MOST_ROWS:
                raise ValueError(
                    f"problem_ids: f has a row to learn for each number up to the largest, and {problem_space} has more than "
                    "a million. Take small ones, as seeds range(500) and not 500 random ones"
                )
            self.table = nn.Embedding(sum(sizes), hidden_dim)
            starts = [sum(sizes[:place]) for place in range(len(sizes))]
            self.register_buffer("offsets", th.tensor(starts), persistent=False)
            self.net = nn.Sequential(nn.Linear(hidden_dim, embedding_dim, bias=not centered))
            self._centered_sizes = sizes if centered else None
        elif isinstance(problem_space, spaces.Box):
            if centered:
                raise ValueError(f"center_problem_encoder needs problems that can be counted, and not {problem_space}")
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
        table = self.table.weight
        if self._centered_sizes is not None:
            table = th.cat([part - part.mean(dim=0) for part in table.split(self._centered_sizes)])
        return self.net(F.embedding(rows, table).sum(dim=1))
