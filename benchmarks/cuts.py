"""Writing a checkpoint without a block of layers: ours, mergekit, transformers, and cp of the same bytes."""

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

import common
from common import SCRIPTS, Run, alternating, median_row, ratio, report, run, target

MERGEKIT = "mergekit==0.1.5"
SHAPE = dict(layers=16, width=1024, ffn=4096, heads=16, vocabulary=8000)
BLOCK = "drop_9-13"  # 5 of 16: three quarters of the file are written
FIRST, LAST = 9, 13

BY_TRANSFORMERS = f"""
import sys
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
del model.model.layers[{FIRST}:{LAST + 1}]
model.config.num_hidden_layers = len(model.model.layers)
model.save_pretrained(sys.argv[2])
"""
BY_MERGEKIT = f"""
merge_method: passthrough
dtype: float32
slices:
  - sources: [{{model: MODEL, layer_range: [0, {FIRST}]}}]
  - sources: [{{model: MODEL, layer_range: [{LAST + 1}, {SHAPE["layers"]}]}}]
"""


def install_mergekit(folder: Path) -> Path:
    """mergekit in an environment of its own, which sees the packages of this one; returns its program."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with open(folder / "pip.log", "w") as log:
        pip = [folder / "bin/pip", "install", "--disable-pip-version-check", MERGEKIT]
        if subprocess.run(pip, stdout=log, stderr=log).returncode:
            sys.exit(f"{MERGEKIT} could not be installed: {folder}/pip.log says why")
    return folder / "bin/mergekit-yaml"


def fresh(folder: Path) -> Path:
    """An empty place: nothing is there, and nothing of before waits to be written to the disk."""
    folder.unlink() if folder.is_file() else shutil.rmtree(folder, ignore_errors=True)
    os.sync()
    return folder


def weights(folder: Path) -> int:
    """Bytes of the weights in a checkpoint that are its own, not links."""
    found = [path.stat() for path in folder.glob("*.safetensors")]
    return sum(stat.st_size for stat in found if stat.st_nlink == 1)


def main(place: Path) -> None:
    mergekit = install_mergekit(place / "mergekit")
    source, base, by_layer = place / "source", place / "base", place / "by_layer"
    run(sys.executable, __file__, "write", source)
    size = (source / "model.safetensors").stat().st_size
    run(sys.executable, SCRIPTS / "adopt.py", "--source", source, "--model", "base", "--out", base)
    reshard = run(
        *[sys.executable, SCRIPTS / "adopt.py", "--source", source, "--model", "base", "--out", by_layer],
        "--reshard",
    )
    whole = weights(by_layer)
    (place / "mergekit.yaml").write_text(BY_MERGEKIT.replace("MODEL", str(source)))

    def cut(checkpoint: Path, target: Path, *more: str) -> Run:
        fresh(target)
        words = [SCRIPTS / "cut.py", "--checkpoint", checkpoint, "--block", BLOCK, "--out", target]
        return run(sys.executable, *words, *more)

    def copy(words: str) -> Run:
        fresh(place / "copied")
        return run("sh", "-c", words, "sh", place / "cut/model.safetensors", place / "copied")

    def by_mergekit() -> Run:
        out = fresh(place / "by_mergekit")
        return run(mergekit, "--no-copy-tokenizer", place / "mergekit.yaml", out)

    def by_transformers() -> Run:
        out = fresh(place / "by_transformers")
        return run(sys.executable, "-c", BY_TRANSFORMERS, source, out)

    cut(base, place / "cut")
    subjects = {
        "ours": lambda: cut(base, place / "cut"),
        "ours, shards by layer": lambda: cut(by_layer, place / "cut_by_layer"),
        "cp": lambda: copy('cp "$1" "$2"'),
        "cp and sync": lambda: copy('cp "$1" "$2" && sync "$2"'),
        "mergekit": by_mergekit,
        "transformers": by_transformers,
    }
    runs = alternating(subjects, repeats=5)
    verified = [cut(base, place / "cut", "--verify")]
    times = {name: [r.seconds for r in found] for name, found in runs.items()}

    def row(what: str, found: list[Run], written: int | None = None) -> dict:
        peak = statistics.median(r.peak_mb for r in found)
        size = {} if written is None else {"written_mb": written / 2**20}
        return median_row(what, [r.seconds for r in found], peak_mb=peak, **size)

    def own(name: str) -> int:
        return weights(place / name)

    report(
        [
            row("cut.py", runs["ours"], own("cut")),
            row("cut.py, base with one shard per layer", runs["ours, shards by layer"], own("cut_by_layer")),
            row("once: adopt.py --reshard", [reshard], whole),
            row("cut.py --verify, which imports torch and loads the result without weights", verified),
            row("mergekit passthrough", runs["mergekit"], own("by_mergekit")),
            row("transformers: load, delete layers, save", runs["transformers"], own("by_transformers")),
            row("cp of what cut.py wrote", runs["cp"]),
            row("cp of it, and sync", runs["cp and sync"]),
        ],
        [
            target(
                "mergekit / cut.py", ratio(times["mergekit"], times["ours"]), 5, WHY_MERGEKIT, at_least=True
            ),
            target("cut.py / cp and sync", ratio(times["ours"], times["cp and sync"]), 1, WHY_CP),
            target(
                "peak memory of cut.py, MB",
                statistics.median(r.peak_mb for r in runs["ours"]),
                100,
                "It does not depend on the size of the checkpoint.",
            ),
        ],
        f"Llama, {SHAPE['layers']} layers, {size / 1e9:.1f} GB in one file, fp32, in the kernel's cache; "
        f"without {BLOCK}; whole processes, start-up included. cut.py also hashes what it writes and brings "
        "it to the disk; mergekit, transformers and plain cp leave that to the kernel. "
        f"{MERGEKIT}, installed for this run.",
    )


WHY_MERGEKIT = (
    "Both wait for the same disk, ours until the bytes are on it, mergekit not, so it moves with the disk."
)
WHY_CP = (
    "cut.py starts Python first (0.2 s), and hashes what it writes beside the copying and the flush, which "
    "share the cores. On XFS and Btrfs, which share blocks, it writes next to nothing."
)

if __name__ == "__main__":
    common.program(main, SHAPE)
