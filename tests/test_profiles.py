"""Each profile plans a small study that asks for a GPU. ``test_slurm.py`` runs two on a real Slurm."""

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from deeper_layers.pruning.layer_set import FULL
from deeper_layers.study.workload import Workloads
from helpers.config import ROOT, checked, full_config
from helpers.small_study import changed, prepare, run

PROFILES = sorted(path.parent for path in (ROOT / "profiles").glob("*/config.yaml"))
RULES = {
    name
    for path in (ROOT / "rules").glob("*.smk")
    for name in re.findall(r"^rule (\w+):", path.read_text(), re.M)
} | {"heal"}  # named in a loop over the methods
PLUGINS = {"slurm": "snakemake_executor_plugin_slurm"}
PLUGINS |= dict.fromkeys(["generic", "kubernetes"], "snakemake_executor_plugin_cluster_generic")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("study"), changed(models__tiny__gpus=1))
    (folder / "profiles").symlink_to(ROOT / "profiles")  # some name files of theirs
    return folder


def needs_plugin(profile: Path) -> None:
    plugin = PLUGINS.get(profile.name)
    if plugin and not importlib.util.find_spec(plugin):
        pytest.skip(f"no {plugin}: pip install -r envs/cluster.txt")


def test_there_are_five():
    assert [path.name for path in PROFILES] == ["a100", "default", "generic", "kubernetes", "slurm"]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_study_is_planned_with_it(folder, profile):
    needs_plugin(profile)
    output = run(folder, "--dry-run", "--workflow-profile", f"profiles/{profile.name}")
    assert f"profile profiles/{profile.name}" in output
    stats = re.search(r"Job stats:\n.*?\n-+.*?\n(.*?)\ntotal ", output, re.S)[1].splitlines()
    assert {"adopt", "tokenise", "distances", "blocks", "table"} <= {line.split()[0] for line in stats}
    settings = yaml.safe_load((profile / "config.yaml").read_text())
    assert set(settings.get("set-resources", {})) <= RULES  # Snakemake ignores a name that it does not know


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_it_says_its_command_and_every_setting_what_it_is_for(profile):
    lines = (profile / "config.yaml").read_text().splitlines()
    command = "snakemake" + (
        f" --workflow-profile profiles/{profile.name}" if profile.name != "default" else ""
    )
    assert any(line.startswith("#") and command in line for line in lines[:2])
    plain = {"executor", "resources", "default-resources", "cluster-generic-submit-cmd"}
    for line in lines:
        assert line[:1] in ("#", " ") or "#" in line or line.split(":")[0] in plain, line


def test_each_attempt_asks_for_more_and_no_job_for_more_than_a_day():
    config = full_config()
    config["models"]["embedded"]["gpus"] = 1
    job = Workloads(checked(config)).healing("embedded", "healed", FULL)
    for need in (job.gpu_mem_mb, job.mem_mb, job.runtime):
        assert 0 < need(1) < need(2) < need(3)
    config["recipes"]["healed"]["steps"] = 10**9
    job = Workloads(checked(config)).healing("embedded", "healed", FULL)
    assert job.runtime(1) == job.runtime(2) == 24 * 60
    assert job.mem_mb(4) == job.mem_mb(12) > job.mem_mb(3)


def test_a_healing_of_many_days_is_tried_again_for_each():
    """70 billion weights by the paper's recipe: more than four attempts of a day."""
    config = full_config()
    assert Workloads(checked(config)).healing_days() == 1
    config["models"]["embedded"]["gpus"] = 1
    config["models"]["embedded"]["pretrain"] |= {"layers": 80, "width": 8192, "ffn": 28672}
    config["recipes"]["healed"] |= {"steps": 5000, "batch": 16, "length": 2048, "packing": True}
    job = Workloads(checked(config)).healing("embedded", "healed", FULL)
    days = Workloads(checked(config)).healing_days()
    assert job.runtime(99) == 24 * 60 and 24 * 60 * (days - 1) < job.minutes <= 24 * 60 * days and days > 4


def test_a_warning_to_the_job_script_reaches_the_job_which_ends_in_its_own_time(tmp_path):
    (tmp_path / "job.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def save(*_): time.sleep(1); pathlib.Path('saved').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save); pathlib.Path('ready').touch(); time.sleep(60)\n"
    )
    command = f"cd {tmp_path} && {sys.executable} job.py && exit 0 || exit 1"
    text = (ROOT / "profiles/generic/jobscript.sh").read_text().format(properties="{}", exec_job=command)
    (tmp_path / "job.sh").write_text(text)
    script = subprocess.Popen(["bash", tmp_path / "job.sh"], start_new_session=True)
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    script.terminate()  # this shell alone, as schedulers do
    assert script.wait(timeout=50) != 0 and (tmp_path / "saved").exists()


def test_what_a_kubernetes_job_is_made_of(tmp_path, monkeypatch):
    """Only kubectl is not real: it keeps what it is given."""
    kubectl = tmp_path / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(f"#!/bin/sh\ncat > {tmp_path}/job.yaml; echo job.batch/deeper-layers-x\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:/usr/bin:/bin")
    options = [
        "--image",
        "registry.example.org/x:1",
        "--claim",
        "studies",
        "--mount",
        "/studies",
        "--cpus",
        "8",
    ]
    options += ["--node-selector", "nvidia.com/gpu.product=A100", "--memory", "9000M", "--minutes", "30"]
    for gpus in ("0", "1"):
        submit = [ROOT / "profiles/kubernetes/submit.sh", *options, "--gpus", gpus, "/studies/job.sh"]
        assert subprocess.run(submit, capture_output=True, text=True, check=True).stdout.startswith(
            "job.batch/"
        )
        job = yaml.safe_load((tmp_path / "job.yaml").read_text())["spec"]
        pod = job["template"]["spec"]
        (container,) = pod["containers"]
        assert job["activeDeadlineSeconds"] == 1800 and container["command"][-1] == "/studies/job.sh"
        assert container["resources"]["limits"].get("nvidia.com/gpu", 0) == int(gpus)
        assert pod.get("nodeSelector", {}) == ({"nvidia.com/gpu.product": "A100"} if gpus == "1" else {})
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "studies"
