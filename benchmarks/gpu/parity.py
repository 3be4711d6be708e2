"""FlexAttention beside dense attention under a mask, forward and backward: equality and speed.

Both are compared with dense attention in float64 on random packed layouts: FlexAttention is to be as near to it as the dense
kernel of the same precision.

Legend: B rows, L row length, H heads, K head width.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import functional as F

from benchmarks.gpu.clock import Result, attempt, seconds_of_each
from benchmarks.gpu.work import Parity, Work, make_batch
from model.attention.flex import block_mask, packed_flex_attention
from model.attention.packed import FlexBackend, masked_attention
from model.transformer import Attend

PARTS = ("output", "query_gradient", "key_gradient", "value_gradient")
# FlexAttention agrees where its error is within this many times the dense kernel's, or below the floor: in bfloat16 that is
# one rounding, because the dense kernel computes in float32 on a CPU.
TIMES_DENSE = 2.0
FLOORS = {torch.float32: 1e-5, torch.bfloat16: 2.0**-8}


def parity(work: Work, preset: str, device: torch.device) -> Iterator[Result]:
    """Errors in both precisions, and times. No preset's figure; on a CPU forward alone, for FlexAttention has no more there."""
    # Triton's float32 products are of reduced precision unless this is set.
    torch.set_float32_matmul_precision("highest")
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield {name: attempt(lambda: errors(work.parity, dtype, device, "triton"))}  # noqa: B023
    if flash_is_here():
        yield {"bfloat16_flash": attempt(lambda: errors(work.parity, torch.bfloat16, device, "flash"))}
    yield {"times": attempt(lambda: times(work, device))}


def flash_is_here() -> bool:
    """Whether FlexAttention can be compiled to FlashAttention 4."""
    try:
        return torch.cuda.is_available() and find_spec("flash_attn.cute") is not None
    except ImportError:
        return False


def errors(given: Parity, dtype: torch.dtype, device: torch.device, backend: FlexBackend) -> Result:
    """The largest relative errors over the layouts of both kernels."""
    rng = random.Random(0)
    generator = torch.Generator(device).manual_seed(0)
    shape = (given.rows, given.num_attention_heads, given.length, given.head_dim)
    worst: dict[str, dict[str, float]] = {"flex": {}, "dense": {}}
    disagreeing, graphs = 0, counters["stats"]["unique_graphs"]
    for _ in range(given.num_layouts):
        kv_start, kv_end = (each.to(device) for each in random_layout(rng, given.rows, given.length))
        inputs = [torch.randn(shape, generator=generator, device=device).to(dtype) for _ in range(4)]
        exact = results(masked_attention(kv_start, kv_end), [each.double() for each in inputs])
        dense = relative_errors(results(masked_attention(kv_start, kv_end), inputs), exact)
        flex = relative_errors(results(packed_flex_attention(kv_start, kv_end, backend), inputs), exact)
        disagreeing += any(flex[part] > max(TIMES_DENSE * dense[part], FLOORS[dtype]) for part in flex)
        for kernel, found in (("flex", flex), ("dense", dense)):
            worst[kernel] |= {part: max(worst[kernel].get(part, 0.0), error) for part, error in found.items()}
    compared = "forward and backward" if device.type == "cuda" else "forward"
    return {
        "agree": disagreeing == 0,
        "layouts": given.num_layouts,
        "disagreeing": disagreeing,
        "compared": compared,
        "graphs_compiled": counters["stats"]["unique_graphs"] - graphs,
        "largest_relative_errors": worst,
    }


def results(attend: Attend, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Output, and gradients where there can be any. inputs: query, key, value and the output's gradient, [B, H, L, K] each."""
    if inputs[0].device.type != "cuda":
        return {"output": attend(0, *inputs[:3])}
    leaves = [each.detach().requires_grad_() for each in inputs[:3]]
    output = attend(0, *leaves)
    gradients = torch.autograd.grad(output, leaves, inputs[3])
    return dict(zip(PARTS, (output.detach(), *gradients), strict=True))


def relative_errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Norms of the differences by the exact norms; infinite where a number is not finite."""
    errors = {part: float((found[part].double() - exact[part]).norm() / exact[part].norm()) for part in found}
    return {part: error if error == error else float("inf") for part, error in errors.items()}


def random_layout(rng: random.Random, num_rows: int, length: int) -> tuple[Tensor, Tensor]:
    """first and last, int32 [B, L]: documents of any length with images of any length, and padding behind them."""
    kv_start = torch.arange(length, dtype=torch.int32).repeat(num_rows, 1)
    kv_end = kv_start.clone()
    for row in range(num_rows):
        start, filled = 0, length - rng.choice([0, rng.randrange(length // 2)])
        while start < filled:
            end = min(filled, start + rng.choice([rng.randint(1, 40), rng.randint(1, length)]))
            kv_start[row, start:end] = start
            at = start + rng.randint(0, 30)
            while at < end:
                stop = min(end, at + rng.randint(1, max(1, length // 3)))
                kv_end[row, at:stop] = stop - 1
                at = stop + rng.randint(0, 60)
            start = end
    return kv_start, kv_end


def times(work: Work, device: torch.device) -> Result:
    """Seconds at full row length in bfloat16, and of building the mask; `causal` is one document a row, for orientation."""
    given = work.parity
    batch, _ = make_batch(work, given.timed_rows, seed=0)
    kv_start, kv_end = batch.kv_start.to(device), batch.kv_end.to(device)
    shape = (given.timed_rows, given.num_attention_heads, work.row_length, given.head_dim)
    inputs = [torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(4)]

    def causal(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    kernels = {"flex": packed_flex_attention(kv_start, kv_end), "dense": masked_attention(kv_start, kv_end), "causal": causal}
    if flash_is_here():
        kernels["flash"] = packed_flex_attention(kv_start, kv_end, "flash")
    backward = {name: _median(lambda attend=attend: results(attend, inputs), work, device) for name, attend in kernels.items()}
    with torch.no_grad():
        forward = {
            name: _median(lambda attend=attend: attend(0, *inputs[:3]), work, device) for name, attend in kernels.items()
        }
        mask = _median(lambda: block_mask(kv_start, kv_end), work, device)
    return {
        "shape": list(shape),
        "visible_share": float((kv_end - kv_start + 1).sum()) / (given.timed_rows * work.row_length**2),
        "forward_seconds": forward,
        "forward_backward_seconds": backward if device.type == "cuda" else None,
        "block_mask_seconds": mask,
    }


def _median(run: Callable[[], object], work: Work, device: torch.device) -> float:
    seconds_of_each(lambda _: run(), work.warm_up, device)
    return statistics.median(seconds_of_each(lambda _: run(), 2 * work.repeats, device))
