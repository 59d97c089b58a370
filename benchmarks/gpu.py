"""The figures of a GPU in one run of less than 8 minutes: distances, family, healing; random weights at the
shapes of a 1B and a 7B model. Needs torch, transformers, peft (and for NF4 bitsandbytes) and this folder.

python benchmarks/gpu.py                writes benchmarks/gpu.json and benchmarks/gpu.md, and, of a card that
                                        the configuration knows, resources/gpus/CARD.json, by which
                                        `snakemake plan` counts from then on
python benchmarks/gpu.py --shapes tiny  the same on a CPU in seconds: a test of this program, not a figure

It has not been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import common
import torch
from common import ratio

from deeper_layers.checkpoints.shape import Shape as ConfigShape
from deeper_layers.data.batches import batches_by_length, padded
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.loss import losses
from deeper_layers.importance.angular import angular_distances
from deeper_layers.models.adapters import add_adapter
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.resources import RESOURCES
from deeper_layers.runtime.provenance import provenance
from deeper_layers.study.gpu_specs import SPECS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shape:
    """A Llama's shape, and how much of each benchmark fits the time."""

    layers: int
    width: int
    ffn: int
    heads: int
    vocabulary: int
    documents: int  # of the distances and the loss
    length: int
    rows: int  # of a healing step
    steps: int
    checkpointing: bool
    repeats: int


SHAPES = {
    "tiny": Shape(6, 32, 64, 2, 64, documents=12, length=32, rows=4, steps=3, checkpointing=True, repeats=2),
    "1B": Shape(
        16,
        2048,
        8192,
        32,
        32000,
        documents=128,
        length=1024,
        rows=16,
        steps=10,
        checkpointing=False,
        repeats=3,
    ),
    "7B": Shape(
        32, 4096, 11008, 32, 32000, documents=64, length=1024, rows=8, steps=6, checkpointing=True, repeats=2
    ),
}


def model_of(shape: Shape):
    """Random weights made on the device itself: bf16 on a GPU, fp32 on a CPU."""
    from transformers import LlamaForCausalLM

    config = common.llama_config(
        shape.layers, shape.width, shape.ffn, shape.heads, shape.vocabulary, max_position_embeddings=4096
    )
    cuda = torch.cuda.is_available()
    torch.manual_seed(0)
    with torch.device("cuda" if cuda else "cpu"):
        return LlamaForCausalLM._from_config(config, dtype=torch.bfloat16 if cuda else torch.float32).eval()


def seconds_of(action: Callable[[], object]) -> Callable[[], float]:
    """``action``, timed to the end of what it started on the GPU."""

    def timed() -> float:
        synchronise()
        started = time.perf_counter()
        action()
        synchronise()
        return time.perf_counter() - started

    return timed


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_distances(model, documents, shape: Shape) -> dict:
    """All distances against a bare pass through the decoder, and against one pass for one n."""
    tokens = sum(map(len, documents))

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches_by_length([len(d) for d in documents], 16384):
            model.base_model(
                input_ids=padded([documents[i] for i in batch])[0].to(model.device), use_cache=False
            )

    @torch.no_grad()
    def one_n() -> None:
        """As PruneMe: the whole model with ``output_hidden_states``, 8 documents at a time, for each n."""
        for start in range(0, len(documents), 8):
            ids = padded(documents[start : start + 8])[0].to(model.device)
            model(input_ids=ids, output_hidden_states=True, use_cache=False)

    ours = seconds_of(lambda: angular_distances(model, documents))
    ours()
    times = common.alternating(
        {"bare": seconds_of(bare), "ours": ours, "one n": seconds_of(one_n)}, shape.repeats
    )
    return {
        "tokens_per_second": tokens / statistics.median(times["ours"]),
        "all distances / bare pass": ratio(times["ours"], times["bare"]),
        "one pass for each n / all distances": ratio(times["one n"], times["ours"]) * shape.layers,
    }


def measure_family(model, documents, shape: Shape) -> dict:
    """The unpruned model and its deep cuts together, against the unpruned model alone."""
    deep = [LayerSet.contiguous(shape.layers - 1 - n, n) for n in range(1, shape.layers // 2)]
    together, alone = CutScorer(model, [FULL, *deep]), CutScorer(model, [FULL])
    subjects = {
        "together": seconds_of(lambda: losses(together, documents, "together")),
        "alone": seconds_of(lambda: losses(alone, documents, "alone")),
    }
    subjects["alone"]()
    times = common.alternating(subjects, shape.repeats)
    counts = together.layer_counts()
    return {
        "cuts": len(deep),
        "scored, tokens a second": sum(map(len, documents)) / statistics.median(times["alone"]),
        "family / unpruned": ratio(times["together"], times["alone"]),
        "layers run / layers separate": counts["run"] / counts["separate"],
    }


def measure_healing(model, shape: Shape) -> dict:
    """Real tokens a second of LoRA steps: ours, against one padded document a row, all rows at once."""
    from torch.optim import AdamW

    from deeper_layers.data.packing import Steps
    from deeper_layers.data.tokens import Tokens, write_tokens
    from deeper_layers.healing.batch_plan import first_plan
    from deeper_layers.healing.monitor import TrainingMonitor
    from deeper_layers.healing.objective import Objective
    from deeper_layers.healing.steps import StepTrainer
    from deeper_layers.healing.training import training_arguments
    from deeper_layers.runtime.progress import Progress
    from deeper_layers.settings.healing import Healing

    model.config.use_cache = False
    model = add_adapter(model, 64, 64, 0.05, ["auto"]).train()
    cuda, checkpointing = torch.cuda.is_available(), "on" if shape.checkpointing else "off"
    recipe = Healing(
        steps=shape.steps, batch=shape.rows, length=shape.length, warmup=0, packing=True, precision="bf16"
    )
    with tempfile.TemporaryDirectory() as folder:
        documents = common.random_documents(2000, shape.length // 32, shape.length, shape.vocabulary)
        write_tokens(Path(folder, "text.safetensors"), documents)
        steps = Steps(Tokens(Path(folder, "text.safetensors")), shape.steps, shape.rows, shape.length, True)

        def ours() -> float:
            monitor = TrainingMonitor(
                Progress("healing", shape.steps, "step"), threading.Event(), 1e9, 3e-4, 1e9
            )
            StepTrainer(
                model=model,
                args=training_arguments(Path(folder), recipe, cuda),
                train_dataset=steps,
                objective=lambda: Objective(model.get_base_model(), recipe),
                plan=first_plan(
                    ConfigShape.from_config(model.config.to_dict()), checkpointing, shape.length, model.device
                ),
                smaller=lambda plan, tokens, longest: plan.smaller(tokens, longest, checkpointing),
                monitor=monitor,
                longest=shape.length,
            ).train()
            return steps.cumulative_tokens[-1] / monitor.seconds

        def plain() -> float:
            optimiser, real = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4), 0
            synchronise()
            started = time.perf_counter()
            for step in range(shape.steps):
                rows = documents[step * shape.rows : (step + 1) * shape.rows]
                real += sum(map(len, rows))
                ids, last = (x.to(model.device) for x in padded(rows))
                unreal = torch.arange(ids.shape[1], device=ids.device) > last[:, None]
                with torch.autocast(model.device.type, torch.bfloat16, enabled=cuda):
                    model(input_ids=ids, labels=ids.masked_fill(unreal, -100)).loss.backward()
                optimiser.step()
                optimiser.zero_grad()
            synchronise()
            return real / (time.perf_counter() - started)

        ours(), plain()  # what is compiled or tuned at first use
        speeds = common.alternating({"ours": ours, "padded": plain}, shape.repeats)
    return {
        "ours, tokens a second": statistics.median(speeds["ours"]),
        "padded, tokens a second": statistics.median(speeds["padded"]),
        "ours / padded": ratio(speeds["ours"], speeds["padded"]),
    }


def measure(shape: Shape) -> dict:
    model = model_of(shape)
    documents = common.random_documents(shape.documents, shape.length // 4, shape.length, shape.vocabulary)
    found = {
        "shape": asdict(shape),
        "parameters": sum(p.numel() for p in model.parameters()),
        "distances": measure_distances(model, documents, shape),
        "family": measure_family(model, documents, shape),
        "healing": measure_healing(model, shape),
    }
    if torch.cuda.is_available():
        found["peak_cuda_gb"] = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
    return found


def card_here() -> str | None:
    """The name that the configuration has for this GPU, by its own name and its memory."""
    if not torch.cuda.is_available():
        return None
    _, total = torch.cuda.mem_get_info()
    own = torch.cuda.get_device_name().lower().replace(" ", "-")
    known = [name for name in SPECS if name.split("-")[-1 if name.startswith("rtx") else 0] in own.split("-")]
    return min(known, key=lambda name: abs(SPECS[name].memory_mb - total / 1e6), default=None)


def calibration(found: dict, peak_flops: float) -> dict[str, float]:
    """The parts of the peak that the largest shape reached: 2 operations for each weight and token in
    scoring, 6 in training, as the plan counts."""
    largest = max(found.values(), key=lambda one: one["parameters"])
    speeds = {
        "scoring": 2 * largest["family"]["scored, tokens a second"],
        "training": 6 * largest["healing"]["ours, tokens a second"],
    }
    return {name: speed * largest["parameters"] / peak_flops for name, speed in speeds.items()}


def page(results: dict) -> str:
    """The results as Markdown."""
    lines = [
        "# GPU figures",
        "",
        "Written by `python benchmarks/gpu.py`.",
        "",
        f"Device: {results['device']}.",
    ]
    lines += ["", "| shape | figure | value |", "|---|---|---|"]
    for name, found in results["shapes"].items():
        for part in ("distances", "family", "healing"):
            lines += [f"| {name} | {what} | {value:.4g} |" for what, value in found[part].items()]
    return "\n".join([*lines, ""])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shapes", nargs="+", choices=SHAPES, default=["1B", "7B"], help="the models")
    p.add_argument("--out", type=Path, default=HERE, help="folder for gpu.json and gpu.md")
    p.add_argument("--card", choices=SPECS, default=card_here(), help="what this GPU is")
    p.add_argument("--calibration", type=Path, default=RESOURCES / "gpus", help="folder for CARD.json")
    arguments = p.parse_args()
    if not torch.cuda.is_available() and arguments.shapes != ["tiny"]:
        p.error("there is no GPU here; --shapes tiny tries the program on a CPU")
    found = {}
    for name in arguments.shapes:
        found[name] = measure(SHAPES[name])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    results = provenance(shapes=found)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gpu.json").write_text(json.dumps(results, indent=1, default=str) + "\n")
    (arguments.out / "gpu.md").write_text(page(results))
    if arguments.card:
        reached = calibration(found, SPECS[arguments.card].peak_flops)
        arguments.calibration.mkdir(parents=True, exist_ok=True)
        file = arguments.calibration / f"{arguments.card}.json"
        file.write_text(json.dumps(reached | {"device": results["device"]}, indent=1) + "\n")
    print(page(results))


if __name__ == "__main__":
    main()
