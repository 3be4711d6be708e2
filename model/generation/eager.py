"""A generation step run by torch: eagerly (the reference), compiled, or compiled and replayed as a CUDA graph.

Compiled is the transformer, block by block (see model/compiled.py), on a CPU with linear layers whose weights were laid out
beforehand (see packed_linear.py). A whole step would be compiled anew wherever two of its sizes happen to be equal, rows and
patches of a row, say.

A cache grows with its longest row, for most requests need few of a slot's columns. Not so under graphs: a captured graph has
its shapes and addresses baked in. Few shapes repeat (a token for every row, a latent for every row), so a shape runs
plainly the first time and is captured the second; the window of the cache grows in wide strides; and the cache's buffers, with
the graphs that know them, are lent again when their generation is over.

Legend: H heads, T cache length, K head dim.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from model.attention.cached import cached_attention
from model.compiled import compile_for_generation
from model.experts import selected, shared
from model.packed_linear import copy_with_its_weights, packed
from model.step import Cache, StepInputs, StepOutput
from model.transfusion import Transfusion

Mode = Literal["eager", "compiled", "graphs"]
# Columns by which the active window grows where each new window costs a capture.
WINDOW_STRIDE = 256
# More shapes than repeat in any one generation; each graph holds its inputs and outputs.
MAX_GRAPHS = 64


class Graph(NamedTuple):
    """A captured step: copy into `inputs`, replay, read `output` before the next replay."""

    graph: torch.cuda.CUDAGraph
    inputs: StepInputs
    output: StepOutput


class Slots:
    """The buffers of a cache, and the graphs that were captured on them by (first slot, rows, positions, window)."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.parts: Cache = []
        self.graphs: dict[tuple[int, ...], Graph | None] = {}

    @property
    def num_columns(self) -> int:
        """Columns that there is room for so far."""
        return self.parts[0][0].shape[2] if self.parts else 0


class SlotCache:
    """The right to use some slots until this object is gone."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots


class TorchEngine:
    """Steps of a model where it is, in the precision it has; its outputs stay on its device.

    mode: "eager"; "compiled" (torch.compile: seconds, twice, for one token and for more; on a CPU for the weights as they are
    now, of which it holds a second copy); "graphs" (the same, replayed as CUDA graphs; ValueError without a CUDA GPU, and for
    the U-Net, whose work depends on values).
    """

    def __init__(self, model: Transfusion, max_length: int | None = None, *, mode: Mode = "eager") -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode: {mode!r} is not one of {', '.join(get_args(Mode))}")
        self.model = model.eval()
        self.config = model.config
        self.max_length = max_length or model.config.max_position_embeddings
        self.device = model.embedding.weight.device
        if mode == "graphs" and self.device.type != "cuda":
            raise ValueError(f"mode: 'graphs' needs the model on a CUDA GPU, and it is on {self.device.type}")
        if mode == "graphs" and any(modality.patch_layers == "unet" for modality in model.config.modalities):
            raise ValueError("mode: 'graphs' needs linear patch layers for every modality; take 'compiled'")
        if mode != "eager":
            # A copy, because whoever owns the model may go on training it.
            self.model = packed(self.model) if self.device.type == "cpu" else copy_with_its_weights(self.model)
            compile_for_generation(self.model)
        self._captures = mode == "graphs"
        # By the model's own name for it: sharded weights are gathered around that.
        self._run = _step_of_any_values if self._captures else _step_of
        self._spare: dict[int, list[Slots]] = defaultdict(list)
        self._pool: Any = torch.cuda.graph_pool_handle() if mode == "graphs" else None

    def new_cache(self, num_slots: int) -> SlotCache:
        """Its buffers: a list of tensors [slots, H, T, K], keys and values of each layer."""
        spare = self._spare[num_slots]
        slots = spare.pop() if spare else Slots(num_slots)
        cache = SlotCache(slots)
        if self._captures:
            weakref.finalize(cache, spare.append, slots)
        return cache

    @torch.inference_mode()
    def step(self, inputs: StepInputs, cache: SlotCache, rows: slice) -> StepOutput:
        """Run one step on the slots `rows` (contiguous, one a row of inputs), growing the cache where it is too short."""
        if self._captures:
            strides = -(-inputs.kv_length // WINDOW_STRIDE)
            inputs = inputs._replace(kv_length=min(strides * WINDOW_STRIDE, self.max_length))
        if inputs.kv_length > cache.slots.num_columns:
            self._grow(cache.slots, inputs.kv_length)
        if self._captures:
            return self._replay(inputs, cache.slots, rows)
        return self._run(self.model, inputs.to(self.device), _part(cache.slots, rows))

    def _grow(self, slots: Slots, kv_length: int) -> None:
        """Make room for kv_length columns, and twice what there was; for graphs all there may be, once and for all."""
        # What is captured knows the shapes and the addresses.
        num_columns = self.max_length if self._captures else min(max(kv_length, 2 * slots.num_columns), self.max_length)
        config, weight = self.config, self.model.embedding.weight
        shape = (slots.num_slots, config.num_attention_heads, num_columns, config.head_dim)
        # Fused attention on a CPU is faster in float32, for a single query by four times.
        dtype = torch.float32 if self.device.type == "cpu" else weight.dtype

        def grown(old: Tensor | None) -> Tensor:
            # Zeros, because what a mask hides must still be a number.
            larger = torch.zeros(shape, dtype=dtype, device=self.device)
            if old is not None:
                larger[:, :, : old.shape[2]] = old
            return larger

        parts = slots.parts or [(None, None)] * config.num_hidden_layers
        slots.parts = [(grown(keys), grown(values)) for keys, values in parts]

    def _replay(self, inputs: StepInputs, slots: Slots, rows: slice) -> StepOutput:
        key = (rows.start, *inputs.input_ids.shape, inputs.kv_length)
        graph = slots.graphs.get(key)
        if graph is None:
            # Noted the first time and captured the second: most shapes come once.
            if key not in slots.graphs:
                if len(slots.graphs) < MAX_GRAPHS:
                    slots.graphs[key] = None
                return self._run(self.model, inputs.to(self.device), _part(slots, rows))
            graph = slots.graphs[key] = self._capture(inputs, slots, rows)
        for buffer, value in zip(graph.inputs.tensors, inputs.tensors, strict=True):
            buffer.copy_(value, non_blocking=True)
        graph.graph.replay()
        # The next replay overwrites its outputs, and a multistep solver remembers predictions.
        return StepOutput(*(part.clone() for part in graph.output))

    def _capture(self, inputs: StepInputs, slots: Slots, rows: slice) -> Graph:
        fixed = inputs.with_tensors(part.to(self.device, copy=True) for part in inputs.tensors)
        cache = _part(slots, rows)
        # A run on a stream of its own before capture, as torch.cuda.graph asks; running a step twice changes nothing.
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self._run(self.model, fixed, cache)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = self._run(self.model, fixed, cache)
        return Graph(graph, fixed, output)


def _step_of(model: Transfusion, inputs: StepInputs, cache: Cache) -> StepOutput:
    return model.step(inputs, cache)


def _part(slots: Slots, rows: slice) -> Cache:
    return [(keys[rows], values[rows]) for keys, values in slots.parts]


def _step_of_any_values(model: Transfusion, inputs: StepInputs, cache: Cache) -> StepOutput:
    """`Transfusion.step` with work whose shape depends on no value, as a captured graph needs it."""
    attend = cached_attention(cache, inputs)
    return model.step_with(inputs, attend, selected(inputs.token_type_ids) if model.config.num_experts > 1 else shared)
