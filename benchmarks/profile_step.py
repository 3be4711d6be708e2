"""Where a training step's time goes: `python -m benchmarks.profile_step` profiles our side of benchmarks/peer.

Prints torch.profiler's table by operator, what of the time is products and attention, and the rate in FLOP/s. In the
compiled model, as there, what stands between products goes by the name of the graph it was compiled into.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import matmul_rate
from benchmarks.packed_batch import packed_batch
from benchmarks.peer.ours import config_of, new_trained, train_step
from benchmarks.peer.work import FULL, QUICK, count_positions, make_documents
from components.runtime.allocator import keep_freed_memory
from model.flops import step_flops

# Operators whose own time is a product of a linear layer, and those whose own time is attention, fused or not.
LINEAR = ("aten::mm", "aten::addmm", "aten::_mkldnn_linear", "aten::mkldnn_linear")
UNFUSED = ("aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_softmax_backward_data")
FUSED = "scaled_dot_product"


def main() -> None:
    arguments = _parse()
    keep_freed_memory()  # as every training worker does
    torch.set_num_threads(arguments.threads)
    work = QUICK if arguments.quick else FULL
    size = work.size._replace(hidden_size=arguments.width or work.size.hidden_size)
    trained = new_trained(config_of(size), compiled=work.compiled and not arguments.eager)
    documents = make_documents(work, arguments.documents)
    trained.model.train()

    def step(number: int) -> None:
        batch = packed_batch(documents, trained.model.config, work.row_length[arguments.documents])
        train_step(trained, batch, arguments.precision, number)

    for number in range(2):
        step(number)
    start = time.perf_counter()
    for number in range(arguments.steps):
        step(number)
    seconds = (time.perf_counter() - start) / arguments.steps
    with profile(activities=[ProfilerActivity.CPU], record_shapes=arguments.shapes) as recorded:
        for number in range(arguments.steps):
            step(number)
    averages = recorded.key_averages(group_by_input_shape=arguments.shapes)
    print(averages.table(sort_by="self_cpu_time_total", row_limit=arguments.rows, max_name_column_width=48))
    total = sum(each.self_cpu_time_total for each in averages)
    products = sum(each.self_cpu_time_total for each in averages if each.key in LINEAR)
    attention = sum(each.self_cpu_time_total for each in averages if each.key in UNFUSED or FUSED in each.key)
    batch = packed_batch(documents, trained.model.config, work.row_length[arguments.documents])
    flops = step_flops(trained.model, batch, count_positions(work, arguments.documents))
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    rate = matmul_rate(work.square, work.square, work.square, dtype, seconds=work.matmul_seconds)
    print(f"a step takes {seconds * 1e3:.1f} ms and needs {flops / 1e9:.1f} GFLOP: {flops / seconds / 1e9:.0f} GFLOP/s")
    share = flops / seconds / rate
    print(f"a product of {work.square} squares in {arguments.precision} runs at {rate / 1e9:.0f} GFLOP/s")
    print(f"so a step reaches {share:.1%} of that")
    print(f"of the operators' own time {products / total:.1%} is linear layers' products and {attention / total:.1%} attention")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_step", description=__doc__)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--documents", choices=tuple(FULL.documents), default="equal")
    parser.add_argument("--width", type=int, help="of the stream (default: work S's)")
    parser.add_argument("--steps", type=int, default=3, help="profiled steps (default: 3)")
    parser.add_argument("--rows", type=int, default=25, help="lines of the table (default: 25)")
    parser.add_argument("--shapes", action="store_true", help="one line for each operator and shape of its inputs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--eager", action="store_true", help="not compiled, so that every operator has its name")
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
