"""How long the jobs of a study import before they work: a real job of each program, on next to nothing, and
the same of an earlier commit, where each healed cut was evaluated by itself and each cut imported torch."""

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import common
from common import ROOT, SCRIPTS, report, run, target

BEFORE = "f5ad14c"
ALL = "all jobs of the default study"
CUTS = 14  # of the default study, if its 2 strategies and 7 n choose no block twice
LINE = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)", re.MULTILINE)


def jobs(place: Path) -> list[tuple[str, int, str]]:
    """(name, how often the default study runs it at most, command) of a study in ``place``, in order."""
    m = place / "m"
    model = f"--checkpoint {m}/checkpoints/full"
    tasks = f"--suite quiz --tasks knowledge --include {place}/texts/world/tasks"
    loss = f"--suite loss --loss --tokens {m}/tokens/world-validation.json --sequences 8 --length 32"
    compute = "--precision fp32 --gpus 0 --threads 1"
    healed = f"{model} --healed {m}/healed --blocks drop_2-2 --treatment healed"
    text, tokens = f"{place}/texts/world/train.jsonl", f"{m}/tokens/world-train.json"
    validation = f"--text {place}/texts/world/validation.jsonl --out {m}/tokens/world-validation.json"
    sizes = "--people 10 --train 100 --calibration 20 --validation 20 --questions 8"
    shape = "--layers 4 --width 32 --heads 2 --ffn 64 --steps 2 --batch 2 --length 32"
    training = "--steps 2 --warmup 1 --batch 2 --length 32 --packing --rank 2"
    out, figure = f"--out {m}/healed/drop_2-2", f"--table {place}/table.csv --levels {place}/levels.csv"
    return [
        ("world", 1, f"world.py {sizes} --out {place}/texts/world"),
        ("pretrain", 1, f"pretrain.py {shape} --text {text} --out {m}/pretrained"),
        ("adopt", 1, f"adopt.py --verify --source {m}/pretrained --model m --out {m}/checkpoints/full"),
        ("tokenise", 2, f"tokenise.py {model} --text {text} --out {tokens}"),
        ("tokenise", 1, f"tokenise.py {model} {validation}"),
        (
            "distances",
            1,
            f"distances.py {model} --tokens {tokens} --samples 20 --length 32 {compute} "
            f"--out {m}/distances.csv",
        ),
        (
            "blocks",
            1,
            f"blocks.py {model} --strategies deepest --remove 1 --evidence distances={m}/distances.csv "
            f"--out {m}/blocks.csv",
        ),
        ("verify_cuts", 1, f"verify_cuts.py {model} --blocks drop_2-2 --out {m}/verified.json"),
        ("cut", CUTS, f"cut.py {model} --block drop_2-2 --out {m}/checkpoints/drop_2-2"),
        (
            "heal",
            CUTS + 1,
            f"heal.py --checkpoint {m}/checkpoints/drop_2-2 --tokens {tokens} {training} {compute} {out} "
            f"--state {m}/state",
        ),
        (
            "evaluate, tasks, all cuts",
            1,
            f"evaluate.py {model} {tasks} {compute} --blocks full drop_2-2 --out {m}/pruned/quiz",
        ),
        (
            "evaluate, loss, all cuts",
            1,
            f"evaluate.py {model} {loss} {compute} --blocks full drop_2-2 --out {m}/pruned/loss",
        ),
        (
            "evaluate, tasks, healed",
            1,
            f"evaluate.py {healed} {tasks} {compute} --out {m}/healed/evaluated/quiz.json",
        ),
        (
            "evaluate, loss, healed",
            1,
            f"evaluate.py {healed} {loss} {compute} --out {m}/healed/evaluated/loss.json",
        ),
        (
            "table",
            1,
            f"table.py --study {place}/study.json --out {place}/table.csv --levels {place}/levels.csv",
        ),
        ("figure", 6, f"figure.py retained --models m {figure} --formats svg --out {place}/retained"),
    ]


def main(place: Path) -> None:
    rows = measured(place / "now")
    need_torch = {"pretrain", "adopt", "distances", "verify_cuts", "heal"}
    without = [
        row for row in rows if row["what"] not in need_torch and not row["what"].startswith("evaluate")
    ]
    targets = [
        target(
            "programs that need no torch and import it",
            sum(row["torch"] == "yes" for row in without),
            0,
            "A library that one of them uses imports torch.",
        )
    ]
    rows.append(all_jobs(rows, ALL))
    if (before := imports_of(BEFORE, place)) is not None:
        rows.append(all_jobs(before, f"{ALL}, commit {BEFORE}"))
        targets.append(
            target(
                f"import seconds of the default study, as a part of those of commit {BEFORE}",
                rows[-2]["import_seconds"] / rows[-1]["import_seconds"],
                0.25,
                "Most of what is left is healing, a process for each cut, and torch half of that.",
            )
        )
    report(
        rows,
        targets,
        "Import seconds are those that python -X importtime counts, which adds about a tenth. The number of "
        f"jobs is the most there can be in the default study, with {CUTS} distinct blocks. adopt and "
        "verify_cuts import torch to build models without weights. Of the earlier commit its own benchmark "
        "was run right after.",
    )


def measured(place: Path) -> list[dict]:
    """A row for each program, run in a study in ``place``."""
    rows = []
    place.mkdir()
    contents = {"models": ["m"], "strategies": ["deepest"], "suites": ["quiz", "loss"]}
    healed = {"healed": {"healed": {"m": ["drop_2-2"]}}}
    (place / "study.json").write_text(json.dumps(contents | healed))
    for name, count, command in jobs(place):
        found = run(sys.executable, "-X", "importtime", *f"{SCRIPTS}/{command}".split())
        modules = {module: int(micro) / 1e6 for micro, module in LINE.findall(found.output)}
        rows.append(
            {
                "what": name,
                "jobs": count,
                "import_seconds": sum(modules.values()),
                "seconds": found.seconds,
                "torch": "yes" if "torch.nn" in modules else "no",
                "peak_mb": found.peak_mb,
            }
        )
    return rows


def all_jobs(rows: list[dict], what: str) -> dict:
    """The sum of the rows, each as often as its job is run."""
    seconds = sum(row["jobs"] * row["import_seconds"] for row in rows)
    return {"what": what, "jobs": sum(row["jobs"] for row in rows), "import_seconds": seconds}


def imports_of(commit: str, place: Path) -> list[dict] | None:
    """What the benchmark of an earlier commit says, for as many cuts; None where git does not know it."""
    archive = place / "before.tar"
    command = [
        "git",
        "-C",
        ROOT,
        "archive",
        "--output",
        archive,
        commit,
        "benchmarks",
        "scripts",
        "resources",
    ]
    if subprocess.run(command, capture_output=True).returncode:
        return None
    with tarfile.open(archive) as tar:
        tar.extractall(place / commit, filter="data")
    program = place / commit / "benchmarks/startup.py"
    program.write_text(re.sub(r"^CUTS = \d+", f"CUTS = {CUTS}", program.read_text(), flags=re.MULTILINE))
    rows = json.loads(run(sys.executable, program).output.splitlines()[-1])["rows"]
    return [row for row in rows if "seconds" in row]


if __name__ == "__main__":
    common.program(main)
