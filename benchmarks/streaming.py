"""Distances of a checkpoint read one layer at a time: memory and time, against the model in memory."""

import os
import statistics
import sys
import time
from pathlib import Path

import common
from common import Run, alternating, figure, median_row, ratio, report, run, target

SHAPE = dict(layers=64, width=1024, ffn=2816, heads=16, vocabulary=4000)
DOCUMENTS, LENGTH = 16, 32


def job(folder: str, how: str) -> None:
    """What a child does: distances of the checkpoint, in memory or streamed."""
    common.threads()
    from deeper_layers.importance.angular import angular_distances, streamed_distances
    from deeper_layers.models.load import load_model
    from deeper_layers.models.streaming import Stream

    documents = common.random_documents(DOCUMENTS, LENGTH, LENGTH, SHAPE["vocabulary"])
    started = time.perf_counter()
    if how == "in memory":
        distances = angular_distances(load_model(folder), documents)
    else:
        distances = streamed_distances(Stream(folder), documents)
    print(time.perf_counter() - started, float(distances.mean.sum()))


def forget(folder: Path) -> None:
    """Drop the files from the kernel's cache, as far as any user can."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def main(place: Path) -> None:
    folder = place / "model"
    run(sys.executable, __file__, "write", folder)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))

    def child(how: str):
        def measured() -> Run:
            forget(folder)
            return run(sys.executable, __file__, "job", folder, how)

        return measured

    def read() -> float:
        forget(folder)
        return common.seconds_of(lambda: read_through(folder))()

    runs = alternating(
        {"in memory": child("in memory"), "streamed": child("streamed"), "read": read}, repeats=3
    )
    inner = {how: [float(r.output.split()[-2]) for r in runs[how]] for how in ("in memory", "streamed")}
    sums = {r.output.split()[-1] for how in inner for r in runs[how]}
    peaks = {how: statistics.median(r.peak_mb for r in runs[how]) for how in inner}
    gigabytes = size / 1e9
    report(
        [
            median_row("one sequential read of the files", runs["read"]),
            median_row("load, then distances in memory", inner["in memory"], peak_mb=peaks["in memory"]),
            median_row("distances, streamed", inner["streamed"], peak_mb=peaks["streamed"]),
        ],
        [
            target(
                "peak memory of the streamed process / checkpoint",
                peaks["streamed"] * 2**20 / size,
                0.25,
                "Half of it is torch and transformers themselves; a larger checkpoint has more room.",
            ),
            figure("streamed / in memory, seconds", ratio(inner["streamed"], inner["in memory"])),
            figure("streamed / one sequential read, seconds", ratio(inner["streamed"], runs["read"])),
        ],
        f"Llama, {SHAPE['layers']} layers, width {SHAPE['width']}, {gigabytes:.1f} GB in fp32; {DOCUMENTS} "
        f"documents of {LENGTH} tokens; files dropped from the kernel's cache before each run. Peak memory "
        "is of the whole process, of which 370 MB are Python, torch and transformers. While a layer computes "
        "the next one is read by the same cores, which in memory is done before. Both give "
        + ("the same distances." if len(sums) == 1 else f"distances whose sums are {sorted(sums)}."),
    )


if __name__ == "__main__":
    common.program(main, SHAPE, job)
