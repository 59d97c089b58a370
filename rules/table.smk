# The results table: one row per (model, strategy, n, treatment), from every evaluation.


rule table:
    input:
        study=rules.study.output,
        blocks=expand(paths.blocks(), model=study.models),
        bases=expand(paths.full(), model=study.models),
        evaluations=inputs.evaluations,
        speed=expand(
            paths.speed(), model=study.models if config["study"]["speed"] else []
        ),
    output:
        csv=paths.table(),
        md=paths.table("md"),
        html=report(
            paths.table("html"),
            caption="../report/table.rst",
            category="Results",
            labels={"result": "table"},
        ),
        levels=paths.levels(),
    log:
        paths.log("table"),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        code=code("table"),
    message:
        "Writing the table"
    shell:
        'python "$SCRIPTS/table.py" --study {input.study:q} '
        "--out {output.csv:q} {output.md:q} {output.html:q} --levels {output.levels:q} --log {log:q}"
