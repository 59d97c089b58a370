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
        csv=f"{OUT}/table.csv",
        md=f"{OUT}/table.md",
        html=report(
            f"{OUT}/table.html",
            caption="../report/table.rst",
            category="Results",
            labels={"result": "table"},
        ),
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
        'python "$SCRIPTS/table.py" {params.options} --results "$(dirname {output.levels:q})" '
        "--out {output.csv:q} {output.md:q} {output.html:q} --levels {output.levels:q} --log {log:q}"
