"""How does a CPU run linear layers fastest when their weights stay as they are? With weights laid out beforehand.

A matrix product first brings its weights into the order that the kernel reads. With many rows that is little beside the
product; with the few of a decoding step it takes longer than the product itself. oneDNN can be given weights in its order.

Such weights are opaque to torch.compile, whose own rules for oneDNN want them as constants; so a compiled layer calls an
operator of this file's, which is one to it.

Legend: O numbers out, I numbers in.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
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

    It does not follow `model` in training. Raises ValueError where this build of torch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        raise ValueError("linear layers are packed by oneDNN, which this build of torch lacks")
    kept: dict[int, object] = {id(each): each for each in (*model.parameters(), *model.buffers())}
    kept |= {id(each): PackedLinear(each) for each in model.modules() if type(each) is nn.Linear}
    return cast(Model, copy.deepcopy(model, kept))


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
