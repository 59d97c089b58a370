# The results table: one row per (model, strategy, n, treatment), from every evaluation.


def evaluations(wildcards):
    """Every evaluation of the study. Each model's blocks decide which healed cuts there are."""
    files = []
    for model in study.models:
        for suite in study.suites:
            files.append(f"{OUT}/{model}/pruned/{suite}/index.json")
            for recipe in study.recipes:
                for block in study.healed(recipe, model, blocks_csv(model)):
                    files.append(f"{OUT}/{model}/{recipe}/{block}/{suite}.json")
    return files


rule table:
    input:
        blocks=expand("{out}/{model}/blocks.csv", out=OUT, model=study.models),
        bases=expand(
            "{out}/{model}/checkpoints/full/manifest.json", out=OUT, model=study.models
        ),
        evaluations=evaluations,
    output:
        tables=expand("{out}/table.{kind}", out=OUT, kind=["csv", "md", "html"]),
        levels=f"{OUT}/levels.csv",
    log:
        f"{OUT}/logs/table.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        options=study.table_options(),
        code=code("table"),
    message:
        "Writing the table"
    shell:
        "python $SCRIPTS/table.py {params.options} --results $(dirname {output.levels}) "
        "--out {output.tables} --levels {output.levels} --log {log}"
