# The study, stage by stage: base model -> distances -> blocks -> checkpoints -> heal -> evaluate -> table
# -> figures. A rule file is a stage (but common.smk, which reads the study, and terminal.smk); the programs are in
# scripts/; config.yaml says what to study.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


# The study of the folder in which Snakemake works, else the default one, beside this file.
CONFIG = Path("config.yaml")
if not CONFIG.exists():
    CONFIG = Path(str(workflow.current_basedir)) / CONFIG


configfile: str(CONFIG)


report: "report/methods.rst"


include: "rules/common.smk"
include: "rules/terminal.smk"
include: "rules/texts.smk"
include: "rules/base.smk"
include: "rules/distances.smk"
include: "rules/influence.smk"
include: "rules/losses.smk"
include: "rules/blocks.smk"
include: "rules/cut.smk"
include: "rules/heal.smk"
include: "rules/evaluate.smk"
include: "rules/speed.smk"
include: "rules/study.smk"
include: "rules/table.smk"
include: "rules/figures.smk"
include: "rules/plan.smk"
include: "rules/check.smk"
include: "rules/summary.smk"
include: "rules/export.smk"


onsuccess:
    show_summary()


rule all:
    default_target: True
    input:
        rules.table.output,
        rules.summary.output,
        rules.explore.output,
        rules.figures.input,
    localrule: True
