"""The benchmarks' own logic: who takes turns, what a target is, the page; and gpu.py at a tiny shape. Speed
is measured by ``make bench``, never in a test."""

import json
import subprocess
import sys

import pytest

from helpers.config import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import common
import gpu
import page
import torch

from deeper_layers.study.gpu_specs import SPECS, calibrated


def test_subjects_take_turns_each_first_in_turn():
    order = []
    results = common.alternating({n: lambda n=n: order.append(n) or len(order) for n in "abc"}, repeats=4)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert results == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_a_ratio_is_of_the_same_turn():
    assert common.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 2.0]) == 2.0


@pytest.mark.parametrize(
    ("value", "at_least", "met"), [(1.0, False, True), (3.0, False, False), (3.0, True, True)]
)
def test_targets(value, at_least, met):
    assert common.target("x", value, 2, "why", at_least)["met"] is met


def test_a_process_is_measured_and_its_failure_is_one():
    # In a process of its own, for a child starts with the peak of its parent.
    measure = """
import sys
sys.path.insert(0, sys.argv[1])
import common
found = common.run(sys.executable, "-c", "b = bytearray(200 << 20); print('done')")
print(found.output.strip(), found.peak_mb, found.cpu)
"""
    words = [sys.executable, "-c", measure, ROOT / "benchmarks"]
    said, peak, cpu = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert said == "done"
    assert 200 < float(peak) < 260 and float(cpu) > 0
    with pytest.raises(SystemExit, match="status 3"):
        common.run(sys.executable, "-c", "raise SystemExit(3)")


def test_the_committed_page_is_that_of_the_committed_figures():
    results = json.loads((ROOT / "benchmarks/results.json").read_text())
    assert set(results) == set(page.TITLES)
    text = (ROOT / "benchmarks/README.md").read_text()
    assert text == page.page(results)
    for result in results.values():
        for target in result["targets"]:
            assert target["met"] or target["missed"] in text


def test_gpu_benchmark_at_a_tiny_shape(tmp_path):
    program = ROOT / "benchmarks/gpu.py"
    words = ["--shapes", "tiny", "--out", tmp_path, "--card", "l4", "--calibration", tmp_path / "gpus"]
    subprocess.run([sys.executable, program, *words], check=True)
    found = json.loads((tmp_path / "gpu.json").read_text())["shapes"]["tiny"]
    assert found["parameters"] > 10_000
    assert found["healing"]["ours, tokens a second"] > 0
    assert found["family"]["layers run / layers separate"] == (6 + 1 + 1) / (6 + 5 + 4)
    assert "| tiny | all distances / bare pass |" in (tmp_path / "gpu.md").read_text()
    # What the plan counts by from then on: 2 and 6 operations for each weight and token.
    card = calibrated("l4", SPECS["l4"], tmp_path / "gpus")
    speeds = found["family"]["scored, tokens a second"], found["healing"]["ours, tokens a second"]
    for is_training, (operations, speed) in enumerate(zip((2, 6), speeds, strict=True)):
        expected = operations * speed * found["parameters"] / SPECS["l4"].peak_flops
        assert card.reached(bool(is_training)) == pytest.approx(expected)
    assert calibrated("h200", SPECS["h200"], tmp_path / "gpus") == SPECS["h200"]


@pytest.mark.parametrize(
    "device, gigabytes, name",
    [
        ("NVIDIA A100-SXM4-80GB", 85, "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", 42, "a100-40gb"),
        ("NVIDIA H100 80GB HBM3", 85, "h100-80gb"),
        ("NVIDIA H200", 150, "h200"),
        ("NVIDIA GeForce RTX 4090", 25, "rtx-4090"),
        ("NVIDIA RTX A6000", 51, "rtx-a6000"),
        ("NVIDIA L4", 24, "l4"),
        ("NVIDIA L40S", 48, "l40s"),
        ("Tesla V100-SXM2-16GB", 17, None),
    ],
)
def test_a_card_is_known_by_its_name(device, gigabytes, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: device)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, gigabytes * 10**9))
    assert gpu.card_here() == name
