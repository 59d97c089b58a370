# The results table: one row per (model, strategy, n, treatment), from every evaluation.


rule table:
    input:
        blocks=expand("{out}/{model}/blocks.csv", out=OUT, model=study.models),
        bases=expand(
            "{out}/{model}/checkpoints/full/manifest.json", out=OUT, model=study.models
        ),
        evaluations=evaluations,
        speed=speeds,
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
