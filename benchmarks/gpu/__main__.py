"""Speed on one GPU: training, the peer's, sampling, FlexAttention beside dense attention, and a training that is killed.

`python -m benchmarks.gpu` writes benchmarks/results/gpu-<card>.json and prints it as the last line. It needs torch, numpy and
safetensors alone, and ends within --minutes, of which every part has its share. benchmarks/README.md says what each figure
means.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.work import FULL, TOY, Work

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
# The data sheet's dense bfloat16 rate of an H100 and an H200, by which MFU is counted whatever the card.
NOMINAL_FLOPS = 989e12
# In the order of their worth. Parity is of no preset, and resume of the first one alone.
# Each part may take its share of the time that is left, by these weights; what it does not take is the others'.
KINDS = {"train": 3, "parity": 2, "peer": 2, "resume": 3, "sampling": 2}
ONCE = ("parity", "resume")
Parts = dict[str, dict[str, Any]]


def main() -> int:
    arguments = _parse()
    work = TOY if arguments.toy else FULL
    if not arguments.toy and not torch.cuda.is_available():
        print("there is no CUDA GPU here; --toy runs everything at toy sizes on the CPU", file=sys.stderr)
        return 2
    presets = arguments.presets or list(work.presets)
    end = time.monotonic() + 60 * arguments.minutes
    parts: Parts = {"machine": run_part("machine", presets[0], toy=arguments.toy, end=end)}
    out = arguments.out or default_path(parts["machine"], toy=arguments.toy)
    result = together(parts, work, kept_parts(out, parts["machine"], work))
    planned = plan(arguments.only or list(KINDS), presets)
    for at, (kind, preset) in enumerate(planned):
        name = kind if kind == "parity" else f"{kind} {preset}"
        parts[name] = run_part(kind, preset, toy=arguments.toy, end=share_of(planned[at:], end))
        # After every part, so that an end from outside leaves what there is.
        result = together(parts, work, kept_parts(out, parts["machine"], work))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result["figures"]))
    print(json.dumps(result))
    return 0


def plan(kinds: Sequence[str], presets: Sequence[str]) -> list[tuple[str, str]]:
    """Every part to be run, and its preset."""
    chosen = [kind for kind in KINDS if kind in kinds]
    return [(kind, preset) for kind in chosen for preset in (presets[:1] if kind in ONCE else presets)]


def share_of(planned: Sequence[tuple[str, str]], end: float) -> float:
    """When the first of the planned parts has to end, on the monotonic clock, so that all of them end by `end`."""
    weights = [KINDS[kind] for kind, _ in planned]
    now = time.monotonic()
    return now + (end - now) * weights[0] / sum(weights)


def run_part(kind: str, preset: str, *, toy: bool, end: float) -> dict[str, Any]:
    """What the part found until it was done, failed or reached `end`; "error" says why there is no more."""
    seconds = end - time.monotonic()
    if seconds < 1:
        return {"error": "not run: no time left"}
    command = [sys.executable, "-m", "benchmarks.gpu.part", kind, preset, *(["--toy"] if toy else [])]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as stdout:
        try:
            code = subprocess.run(command, cwd=ROOT, stdout=stdout, timeout=seconds, check=False).returncode
            problem = {} if code == 0 else {"error": f"ended with code {code}; stderr has more"}
        except subprocess.TimeoutExpired:
            problem = {"error": f"out of time after {seconds:.0f} s"}
        stdout.seek(0)
        found: dict[str, Any] = {}
        for line in stdout.read().splitlines():
            # A process that is stopped may leave half a line.
            if line.endswith("}"):
                found |= json.loads(line)
    return {**found, **problem, "part_seconds": round(time.monotonic() - start, 1)}


def together(parts: Parts, work: Work, kept: Parts) -> dict[str, Any]:
    """Everything that the result file holds. kept: parts of an earlier run."""
    everything = {**kept, **parts}
    return {
        "figures": figures(everything),
        "machine": everything["machine"],
        "work": as_json(work),
        "parts": {name: found for name, found in everything.items() if name != "machine"},
    }


def as_json(work: Work) -> dict[str, Any]:
    """The work as a result file has it."""
    whole = {
        **work._asdict(),
        "sampling": work.sampling._asdict(),
        "parity": work.parity._asdict(),
        "resumed": work.resumed._asdict(),
    }
    return json.loads(json.dumps(whole))


def figures(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the issue asks for, by preset, and whether FlexAttention agrees; null where a part brought nothing."""
    measured = parts["machine"].get("matmul_flops_per_second")
    presets = dict.fromkeys(name.split()[1] for name in parts if " " in name)
    found: dict[str, Any] = {preset: of_preset(parts, preset, measured) for preset in presets}
    for name, part in parts.items():
        if name.startswith("resume "):
            found["resumed_steps_that_differ"] = _get(part, "steps_that_differ")
            waits = _get(part, "waits_in_a_step")
            found["waits_in_a_step"] = None if waits is None else len(waits)
    if "parity" in parts:
        found["flex_agrees"] = {dtype: _get(parts, "parity", dtype, "agree") for dtype in ("float32", "bfloat16")}
        both = (_get(parts, "parity", "times", "forward_backward_seconds", kernel) for kernel in ("dense", "flex"))
        found["flex_times_dense_speed"] = ratio(*both)
    return found


def of_preset(parts: Mapping[str, Mapping[str, Any]], preset: str, matmul: float | None) -> dict[str, Any]:
    """The figures of one preset; training is the compiled one."""
    train, peer, sampling = f"train {preset}", f"peer {preset}", f"sampling {preset}"
    tokens = _get(parts, train, "compiled", "tokens_per_second")
    flops = _get(parts, train, "compiled", "flops_per_second")
    theirs = _best(parts, peer, ("flex", "plain"))
    at_best = _best(parts, peer, ("flex_equal_lengths", "plain_equal_lengths"))
    return {
        "tokens_per_second": tokens,
        "tokens_per_second_uncompiled": _get(parts, train, "eager", "tokens_per_second"),
        "mfu": ratio(flops, NOMINAL_FLOPS),
        "share_of_matmul_rate": ratio(flops, matmul),
        "tokens_per_second_bfloat16_hidden_states": _get(parts, train, "compiled_bfloat16_hidden_states", "tokens_per_second"),
        "recompilations": _get(parts, train, "compiled", "graphs_compiled_while_measured"),
        "peak_memory_gib": _get(parts, train, "compiled", "peak_memory_gib"),
        "rows": _get(parts, train, "rows"),
        "peer_tokens_per_second": theirs,
        "times_peer": ratio(tokens, theirs),
        "times_peer_at_equal_lengths": ratio(tokens, at_best),
        **{
            f"images_per_second_{mode}": _get(parts, sampling, mode, "images_per_second")
            for mode in ("eager", "compiled", "graphs")
        },
    }


def _get(parts: Mapping[str, Any], *keys: str) -> Any:
    found: Any = parts
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _best(parts: Mapping[str, Any], part: str, names: Sequence[str]) -> float | None:
    return max((rate for name in names if (rate := _get(parts, part, name, "tokens_per_second"))), default=None)


def ratio(above: float | None, below: float | None) -> float | None:
    return round(above / below, 4) if above and below else None


def kept_parts(path: Path, machine: Mapping[str, Any], work: Work) -> Parts:
    """Parts of an earlier result, where card, versions and work are the same."""
    if not path.exists():
        return {}
    old = json.loads(path.read_text())
    same = all(old["machine"].get(key) == machine.get(key) for key in ("card", "torch", "driver"))
    return old["parts"] if same and old["work"] == as_json(work) else {}


def default_path(machine: Mapping[str, Any], *, toy: bool) -> Path:
    """A file for each card."""
    if toy:
        return ROOT / ".work" / "gpu-toy.json"
    name = re.sub(r"[^a-z0-9]+", "-", str(machine.get("card", "unknown")).lower()).strip("-")
    return RESULTS / f"gpu-{name}.json"


def table(found: Mapping[str, Any]) -> str:
    """The figures of each preset, one below the other."""
    lines = []
    for name, value in found.items():
        if not isinstance(value, dict):
            lines.append(f"{name}: {value}")
            continue
        lines += [name, *(f"  {figure:32} {_shown(each)}" for figure, each in value.items())]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}" if value > 1 else str(value)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", type=_kinds, help=f"parts, separated by commas, of: {', '.join(KINDS)}")
    parser.add_argument("--presets", type=lambda text: text.split(","), help="sizes, separated by commas")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything together (default: 9.5)")
    parser.add_argument("--toy", action="store_true", help="toy sizes on the CPU: whether it runs, not how fast")
    parser.add_argument("--out", type=Path, help="the file to write (default: benchmarks/results/gpu-<card>.json)")
    return parser.parse_args()


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return kinds


if __name__ == "__main__":
    raise SystemExit(main())
