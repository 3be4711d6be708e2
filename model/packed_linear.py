"""Linear layers whose weights were laid out beforehand, the fastest on a CPU while the weights stay as they are.

A matrix product first brings its weights into the order that the kernel reads. With many rows that is little beside the
product; with the few of a decoding step it takes longer than the product itself. oneDNN can be given weights in its order.

Such weights are opaque to torch.compile, whose own rules for oneDNN want them as constants; so a compiled layer calls an
operator of this file's, which is one to it.

Legend: O numbers out, I numbers in.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class PackedLinear(nn.Linear):
    """`linear` as its weights are now, for inference on a CPU. Shares them, and holds a second copy in oneDNN's order."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._compiled_product = _operator()

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        if torch.compiler.is_compiling():
            return self._compiled_product(input, self._packed, self.bias, self.out_features)
        return _product(input, self._packed, self.bias, self.out_features)


def packed(model: Model) -> Model:
    """A copy of a model on the CPU whose linear layers are packed; it shares all other weights with `model`.

    It does not follow `model` in training. Layers in a precision that oneDNN cannot pack on this processor stay plain.
    Raises ValueError where this build of torch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        raise ValueError("linear layers are packed by oneDNN, which this build of torch lacks")
    linear = [each for each in model.modules() if type(each) is nn.Linear and can_be_packed(each.weight.dtype)]
    return copy_with_its_weights(model, {id(each): PackedLinear(each) for each in linear})


def copy_with_its_weights(model: Model, replaced: Mapping[int, nn.Module] | None = None) -> Model:
    """A copy with the very weights of `model`. replaced: what stands in a module's place, by the id of that."""
    kept: dict[int, object] = {id(each): each for each in (*model.parameters(), *model.buffers())}
    return cast(Model, copy.deepcopy(model, kept | dict(replaced or {})))


def can_be_packed(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes weights of `dtype` on this processor; half precision needs instructions that not all have."""
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return dtype == torch.float32


def _product(x: Tensor, packed: Tensor, bias: Tensor | None, num_out: int) -> Tensor:
    # The overload by its name: to choose it takes torch as long as a tenth of a decoding step's product.
    return torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")


@functools.cache
def _operator() -> Callable[..., Tensor]:
    """`_product` as an operator that torch.compile does not look into."""
    name = "transfusion::packed_linear"
    torch.library.define(name, "(Tensor x, Tensor packed, Tensor? bias, int num_out) -> Tensor")
    torch.library.impl(name, "CompositeExplicitAutograd", _product)
    torch.library.register_fake(name, lambda x, packed, bias, num_out: x.new_empty(*x.shape[:-1], num_out))
    return torch.ops.transfusion.packed_linear.default
