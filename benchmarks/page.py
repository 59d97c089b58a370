"""results.json as a Markdown page."""

from deeper_layers.reporting.text import markdown_table

TITLES = {
    "distances": "Distances at the cost of one forward pass",
    "streaming": "Models larger than memory",
    "cuts": "Cuts at disk speed",
    "families": "A family of cuts evaluated at once",
    "harness": "Questions after the same examples",
    "healing": "Healing throughput",
    "threads": "Threads that do not spin",
    "startup": "Start-up",
    "serving": "Cuts that are served",
}
COLUMNS = {
    "seconds": ("seconds", "{:.2f}"),
    "from": ("least", "{:.4g}"),
    "to": ("most", "{:.4g}"),
    "tokens_per_second": ("tokens/s", "{:.0f}"),
    "tokens": ("tokens", "{:.0f}"),
    "peak_mb": ("peak MB", "{:.0f}"),
    "size_mb": ("MB of weights", "{:.0f}"),
    "prompt": ("tokens/s read", "{:.0f}"),
    "writing": ("tokens/s written", "{:.1f}"),
    "written_mb": ("MB written", "{:.0f}"),
    "layers": ("layers a batch", "{:.0f}"),
    "jobs": ("jobs", "{}"),
    "import_seconds": ("seconds of imports", "{:.2f}"),
    "torch": ("torch", "{}"),
}
INTRODUCTION = """# Benchmarks

Written by `make bench` (`python benchmarks/bench.py`) with the figures of the run named below; numbers of
another machine come from the same command. Seconds are medians of runs that take turns; a ratio is the
median of the ratios within a turn, so what else the machine does falls on both sides. A target is what the
design asks for; where it is missed the page says why and what would close it. GPU figures:
`python benchmarks/gpu.py`, which has not been run on a GPU yet.
"""


def page(results: dict) -> str:
    """The whole page."""
    done = {name: results[name] for name in TITLES if name in results}
    parts = [INTRODUCTION, machines(done), summary(done)]
    parts += [section(TITLES[name], result) for name, result in done.items()]
    return "\n".join(parts)


def machines(results: dict) -> str:
    """Where the figures come from, once if all are of one machine."""
    lines = {}
    for name, result in results.items():
        here = result["machine"]
        versions = ", ".join(f"{package} {number}" for package, number in here["versions"].items())
        text = (
            f"{here['cores']} cores ({here['processor']}), {here['memory_gib']} GiB, no GPU used; {versions}"
        )
        lines.setdefault(text, []).append(
            f"{name} ({result['date']}, load {here['load_at_start']}, {result['took_seconds']} s)"
        )
    return "\n".join(f"Machine: {text}.\nRuns: {', '.join(names)}.\n" for text, names in lines.items())


def summary(results: dict) -> str:
    """All targets in one table."""
    rows = [
        [target["what"], number(target["value"]), target["target"], verdict(target)]
        for result in results.values()
        for target in result["targets"]
    ]
    return "\n".join([*markdown_table(["figure", "value", "target", "met"], rows, padded=False), ""])


def section(title: str, result: dict) -> str:
    """One benchmark: what was run, the times, and what was missed."""
    columns = [key for key in COLUMNS if any(key in row for row in result["rows"])]
    heads = ["", *(COLUMNS[key][0] for key in columns)]
    rows = [
        [row["what"], *(COLUMNS[key][1].format(row[key]) if key in row else "" for key in columns)]
        for row in result["rows"]
    ]
    lines = [f"## {title}", "", f"`{result['command']}`", "", result["setting"], ""]
    lines += [*markdown_table(heads, rows, padded=False), ""]
    for target in result["targets"]:
        said = verdict(target) + ("" if target["met"] else f". {target['missed']}")
        asked = f", target {target['target']}: {said}" if said else ""
        lines.append(f"- {target['what']}: {number(target['value'])}{asked}")
    return "\n".join([*lines, ""])


def verdict(target: dict) -> str:
    """Whether a target is met, if there is one."""
    if target["target"] == "none":
        return ""
    return "met" if target["met"] else "**missed**"


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
