"""Run the benchmarks and write results.json and README.md beside this file: ``make bench``. On two
cores it took 21 minutes.

python benchmarks/bench.py [NAME ...]: only these; the others keep the figures that results.json has.
"""

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import common
import page

HERE = Path(__file__).parent
NAMES = ("distances", "streaming", "cuts", "families", "harness", "healing", "threads", "startup")
MORE = ("serving",)  # only by name: it needs more than the others
PACKAGES = ("torch", "transformers", "peft", "lm-eval", "safetensors", "numpy", "llama-cpp-python")


def machine() -> dict:
    """Where the figures come from."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none: all. Or {MORE[0]}")
    p.add_argument("--repeats", type=int, help="of every measurement, for a quick look; none: each its own")
    arguments = p.parse_args()
    if arguments.repeats:
        os.environ["REPEATS"] = str(arguments.repeats)
    names = arguments.names or NAMES
    for name in names:
        if name not in (*NAMES, *MORE):
            p.error(f"there is no benchmark {name!r}: choose of {', '.join((*NAMES, *MORE))}")
    file = HERE / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in names:
        print(f"{name} ...", end=" ", flush=True)
        started, here = time.monotonic(), machine()
        found = common.run(sys.executable, HERE / f"{name}.py")
        results[name] = json.loads(found.output.splitlines()[-1]) | {
            "command": f"python benchmarks/{name}.py",
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "took_seconds": round(time.monotonic() - started),
            "machine": here,
        }
        file.write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "README.md").write_text(page.page(results))
        missed = [t["what"] for t in results[name]["targets"] if not t["met"]]
        print(f"{time.monotonic() - started:.0f} s" + (f"; missed: {', '.join(missed)}" if missed else ""))


if __name__ == "__main__":
    main()
