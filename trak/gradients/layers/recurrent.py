"""Recurrent layers, run a step at a time: the gradients of their weights are sums of outer products over steps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from trak._utils.torch_private import DisableTorchFunction, flat_weights_names, pack_padded_sequence
from trak.gradients.layers.capture import Capture
from trak.gradients.layers.linear import outer_products, summed
from trak.gradients.layers.registry import LAYERS, ParameterUse

State = tuple[Tensor, ...]
"""h, and c of an LSTM, each (B, H)."""
_Cell = Callable[[Tensor, Tensor, State], State]


def _gru(x: Tensor, a: Tensor, state: State) -> State:
    (h,) = state
    xr, xz, xn = x.chunk(3, -1)
    ar, az, an = a.chunk(3, -1)
    z, n = torch.sigmoid(xz + az), torch.tanh(xn + torch.sigmoid(xr + ar) * an)
    return (n + z * (h - n),)


def _lstm(x: Tensor, a: Tensor, state: State) -> State:
    i, f, g, o = (x + a).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


_CELLS: dict[str, _Cell] = {
    "GRU": _gru,
    "LSTM": _lstm,
    "RNN_TANH": lambda x, a, _: (torch.tanh(x + a),),
    "RNN_RELU": lambda x, a, _: (torch.relu(x + a),),
}
"""The next state from x = W_ih x_t + b_ih, a = W_hh h + b_hh and the last state, by `nn.RNNBase.mode`."""
_FORWARDS = {kind.forward for kind in (nn.GRU, nn.LSTM, nn.RNN)}


@contextmanager
def stepwise_recurrence(model: nn.Module, capture: Capture | None = None) -> Iterator[None]:
    """While entered, `nn.GRU`, `nn.LSTM` and `nn.RNN` within the model run a step at a time and are captured. Without a
    capture they run in operations that, unlike the fused ones, have a forward derivative.

    What is not covered runs as it is, and its parameters are noticed as such: projections (`proj_size`), single
    examples without a batch dimension, and sequences packed with `enforce_sorted=True`, of which nothing tells in
    what order the examples were before they were sorted.
    """
    with ExitStack() as stack:
        for module in model.modules():
            has_rule = capture is not None and any(kind in LAYERS for kind in type(module).__mro__)
            if has_rule or not isinstance(module, nn.RNNBase) or "forward" in vars(module):
                continue
            if type(module).forward in _FORWARDS:
                module.forward = partial(_forward, module, capture)
                stack.callback(delattr, module, "forward")
        yield


def _forward(module: nn.RNNBase, capture: Capture | None, input: Any, hx: Any = None) -> Any:
    packed = isinstance(input, PackedSequence)
    # By their names: after torch.func.functional_call, _flat_weights are those that it put in place of the module's.
    weights: list[Tensor] = [getattr(module, name) for name in flat_weights_names(module)]
    wanted = capture is None or (torch.is_grad_enabled() and capture.watches(weights))
    covered = input.sorted_indices is not None if packed else input.ndim == 3
    random = module.training and module.dropout
    if not wanted or not covered or random or module.proj_size:
        return type(module).forward(module, input, hx)
    if packed:
        x, lengths = pad_packed_sequence(input, batch_first=True)
    else:
        x, lengths = input if module.batch_first else input.transpose(0, 1), None
    output, states = _layers(module, capture, weights, x, lengths, (hx,) if isinstance(hx, Tensor) else hx)
    last = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
    if lengths is not None:
        order = input.sorted_indices
        data, sizes = pack_padded_sequence(output[order], lengths[order.cpu()], True)
        result: Any = PackedSequence(data, sizes, order, input.unsorted_indices)
    else:
        result = output if module.batch_first else output.transpose(0, 1)
    return result, last if module.mode == "LSTM" else last[0]


def _layers(
    module: nn.RNNBase, capture: Capture | None, weights: Sequence[Tensor], x: Tensor, lengths: Tensor | None, hx: Any
) -> tuple[Tensor, list[State]]:
    """Of all layers: the last's h (B, T, directions · H), and the last state of each direction of each."""
    states: list[State] = []
    per_direction = len(weights) // (module.num_layers * (1 + module.bidirectional))
    mask = None if lengths is None else torch.arange(x.shape[1], device=x.device) < lengths.to(x.device).unsqueeze(1)
    for _ in range(module.num_layers):
        outputs = []
        for reverse in (False, True)[: 1 + module.bidirectional]:
            first = len(states) * per_direction
            w_ih, w_hh, *biases = weights[first : first + per_direction]
            b_ih, b_hh = biases or (None, None)
            gates = F.linear(x, w_ih, b_ih)
            if hx is None:
                start: State = (x.new_zeros(len(x), module.hidden_size),) * (1 + (module.mode == "LSTM"))
            else:
                start = tuple(part[len(states)] for part in hx)
            steps = range(x.shape[1])[:: -1 if reverse else 1]
            output, state = _recurrence(capture, _CELLS[module.mode], gates, w_hh, b_hh, start, steps, mask)
            outputs.append(output)
            states.append(state)
        x = torch.cat(outputs, -1)
    return x, states


def _recurrence(
    capture: Capture | None,
    cell: _Cell,
    gates: Tensor,
    w: Tensor,
    b: Tensor | None,
    state: State,
    steps: range,
    mask: Tensor | None,
) -> tuple[Tensor, State]:
    """h after each step, (B, T, H), and the last state; states stay as they are where the mask (B, T) is false.

    With g_t the gradient by a_t = W h_{t-1} + b: ∂W = Σ_t g_t h_{t-1}ᵀ, ∂b = Σ_t g_t.
    """
    before, after = [state[0]] * len(steps), [state[0]] * len(steps)
    # Out of sight of the capture, which would be asked about every operation of every step.
    with DisableTorchFunction():
        added = None if capture is None else capture.attach_to_graph(gates.new_zeros(gates.shape))
        used = (w, b) if capture is None else (w.detach(), None if b is None else b.detach())
        for t in steps:
            before[t] = state[0]
            a = F.linear(state[0], *used)
            following = cell(gates[:, t], a if added is None else a + added[:, t], state)
            if mask is not None:
                here = mask[:, t, None]
                following = tuple(torch.where(here, new, old) for new, old in zip(following, state, strict=True))
            state = following
            after[t] = state[0]
        if capture is not None and added is not None:
            uses = [ParameterUse(w, outer_products, (torch.stack(before, 1),), 1)]
            capture.watch(added, uses if b is None else [*uses, ParameterUse(b, summed)])
        return torch.stack(after, 1), state
