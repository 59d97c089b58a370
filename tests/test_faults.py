"""Faults of the world around a study: a second run in its folder, a run that was killed, a full disk, a
folder that cannot be written to. Each stage has tests of its own; ``test_chaos.py`` kills at random."""

import os
import shutil
import time
from pathlib import Path

import psutil
import pytest

from deeper_layers.runtime.files import atomic_files
from helpers import chaos
from helpers.small_study import prepare, run, start

TEXT = "results/texts/world/train.jsonl"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A study that has not begun; to copy."""
    return prepare(tmp_path_factory.mktemp("prepared") / "study")


@pytest.fixture
def folder(prepared, tmp_path):
    return Path(shutil.copytree(prepared, tmp_path / "study"))


def family(snakemake) -> list[psutil.Process]:
    """Snakemake and its processes, once one of these is a job that does its work."""
    main = psutil.Process(snakemake.pid)
    while not any(map(chaos.is_job, children := main.children(recursive=True))):
        assert snakemake.poll() is None
        time.sleep(0.01)
    return [main, *children]


def files(*folders: Path) -> dict[str, tuple[int, int]]:
    """File -> size and date, of all but Snakemake's own log."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.parts[-2] != "log"]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()}


def test_a_second_run_says_so_and_touches_nothing_and_a_killed_one_goes_on_once_unlocked(folder):
    with open(folder.parent / "first.log", "w") as output:
        first = start(folder, TEXT, output=output)
    running = family(first)
    for process in running:
        process.suspend()  # so that only the second one can change anything
    before = files(folder / "results", folder / ".snakemake")
    assert before

    second = start(folder, TEXT)
    said, _ = second.communicate()
    assert second.returncode == 1 and "Directory cannot be locked" in said
    assert files(folder / "results", folder / ".snakemake") == before

    for process in running:
        process.kill()
    first.wait()
    assert not (folder / TEXT).exists()
    third = start(folder, TEXT)
    said, _ = third.communicate()
    assert third.returncode == 1 and "It can be removed with the --unlock argument" in said
    run(folder, "--unlock")
    run(folder, TEXT)
    assert (folder / TEXT).exists()


def test_a_full_disk_is_one_line_and_leaves_nothing_that_a_rerun_trusts(folder, disk):
    (folder / "results").symlink_to(disk("size=64k"))
    failed = start(folder, TEXT)
    said, _ = failed.communicate()
    assert failed.returncode == 1 and "error: cannot write " in said and "No space left on device" in said
    log = (folder / "results/logs/texts/world.log").read_text()
    assert log.count("\n") == 2 and "Traceback" not in log  # the command and the error
    assert not list((folder / "results/texts").rglob("*.jsonl"))
    assert not list((folder / "results/texts").rglob("*.tmp"))
    disk("size=64m")
    run(folder, TEXT)
    assert (folder / TEXT).read_bytes() == (folder / "text/train.jsonl").read_bytes()


def test_a_folder_that_cannot_be_written_to_is_one_line(folder, disk):
    (folder / "results").symlink_to(disk("size=64m"))
    run(folder, TEXT)
    before = files(folder / "results")
    disk("size=64m,ro")
    failed = start(folder, "results/tiny/checkpoints/full/manifest.json")
    said, _ = failed.communicate()
    assert failed.returncode == 1 and "Read-only file system" in said
    assert files(folder / "results") == before


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path):
    """In a container the processes have the same numbers each time."""
    left = tmp_path / f".{os.getpid()}.tmp"
    left.mkdir()
    (left / "half").touch()
    with atomic_files(tmp_path, last="config.json") as temporary:
        for name in ("config.json", "weights"):
            (temporary / name).touch()
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "weights"}
