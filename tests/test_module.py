"""The workflow as a part of another one, and called from elsewhere."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml

from helpers.config import ROOT
from helpers.small_study import STUDY, prepare, run

pytestmark = pytest.mark.slow
IMPORTER = f"""
import os
import sys

before = sys.path[:], dict(os.environ), sys.excepthook
configfile: "config.yaml"

module deeper:
    snakefile: {str(ROOT / "Snakefile")!r}
    config: config["layers"]

use rule * from deeper as deeper_*

assert not any(path.endswith("scripts") for path in sys.path) and before[2] is sys.excepthook
changed = {{key for key in os.environ if os.environ[key] != before[1].get(key)}}
assert changed <= {{"SCRIPTS", "ASKED", "OMP_WAIT_POLICY"}}, changed
assert shell._process_prefix is None

onsuccess:
    print("the importer's own end")

rule last:
    input:
        "results/tiny/distances.csv",
    output:
        "last.txt",
    shell:
        "wc -l < {{input}} > {{output}}"
"""


@pytest.fixture(scope="module")
def importer(tmp_path_factory):
    """A workflow of another project that uses this one as a module, its configuration under a key."""
    folder = prepare(tmp_path_factory.mktemp("importer"))
    (folder / "config.yaml").write_text(yaml.safe_dump({"own": 1, "layers": STUDY}))
    (folder / "Snakefile").write_text(IMPORTER)
    return folder


def test_another_workflow_uses_it_as_a_module(importer):
    output = run(importer, "--snakefile", "Snakefile", "-n", "deeper_all", "last")
    for rule in ("deeper_blocks", "deeper_table", "deeper_figure_study", "last"):
        assert f"\n{rule} " in output
    output = run(importer, "--snakefile", "Snakefile", "--cores", "1", "last")
    assert int((importer / "last.txt").read_text()) == 1 + 15  # all pairs of five layers
    assert "the importer's own end" in output and "Traceback" not in output


def test_a_single_rule_can_be_used_and_changed(importer):
    (importer / "single").write_text(
        IMPORTER.split("use rule")[0] + "use rule distances, tokenise, world from deeper\n"
        'use rule adopt from deeper as adopt with:\n    log:\n        "logs/{model}.log",\n'
        "rule end:\n    default_target: True\n    input:\n"
        "        'results/tiny/distances.csv',\n"
    )
    output = run(importer, "--snakefile", "single", "-n", "--forceall")
    assert "\ndistances " in output and "\nadopt " in output and "\nend " in output


def test_a_fault_of_the_modules_configuration_is_one_line(importer):
    bad = STUDY | {"study": STUDY["study"] | {"models": ["tinny"]}}
    (importer / "bad.yaml").write_text(yaml.safe_dump({"layers": bad}))
    with pytest.raises(AssertionError) as failure:
        run(importer, "--snakefile", "Snakefile", "-n", "--configfile", "bad.yaml")
    assert "error: study.models: 'tinny' is not known; did you mean 'tiny'?" in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_it_works_in_another_directory_than_the_one_it_is_called_from(tmp_path):
    there = prepare(tmp_path / "there")
    output = run(tmp_path, "--directory", "there", "--cores", "1", "results/tiny/blocks.csv")
    assert (there / "results/tiny/blocks.csv").is_file() and "Traceback" not in output
    # Where there is no study, it is the default one.
    output = run(tmp_path, "--directory", str(tmp_path / "empty"), "-n")
    assert "Training the base model embedded" in output


def test_a_remote_snakefile_is_refused_in_one_line(tmp_path):
    """Snakemake fetches Snakefiles alone; the programs beside them would be missing."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(ROOT))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        (tmp_path / "Snakefile").write_text(
            "module deeper:\n"
            f"    snakefile: 'http://127.0.0.1:{server.server_port}/Snakefile'\n"
            "    config: {'a': 1}\n"
            "use rule * from deeper\n"
        )
        with pytest.raises(AssertionError) as failure:
            run(tmp_path, "--snakefile", "Snakefile", "-n")
    finally:
        server.shutdown()
        server.server_close()
    assert "this workflow runs the programs beside its Snakefile; clone the rep" in str(failure.value)
    assert "Traceback" not in str(failure.value)
