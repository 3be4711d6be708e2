"""The place of a process among those that train together, and what they do as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class World(NamedTuple):
    """This process among `size` that train together."""

    rank: int
    size: int
    device: torch.device
    """Where this process keeps its tensors."""
    local_size: int = 1
    """How many of them are on this machine."""

    def agreed(self, number: int) -> int:
        """Worker 0's number, on every worker."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed

        shared = torch.tensor([number], dtype=torch.int64, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return int(shared)

    def largest(self, number: int) -> int:
        """The largest of the workers' numbers, on every worker."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed

        shared = torch.tensor([number], dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared)

    def slice_of(self, number: int) -> slice:
        """This worker's part of `number` things; the first workers take one more each where they cannot be divided evenly."""
        least, left_over = divmod(number, self.size)
        start = self.rank * least + min(self.rank, left_over)
        return slice(start, start + least + (self.rank < left_over))

    def all_reduce(self, values: Tensor) -> Tensor:
        """Add the other workers' values, in place."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.all_reduce(values)
        return values

    def parallel(self, network: nn.Module) -> nn.Module:
        """`network` with gradients averaged over the workers; the network itself knows nothing of them."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        # Buffers are constants, so that none is sent before a forward pass.
        return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)
