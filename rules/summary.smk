# The answer: how many layers can go, which, and what that saves, also printed at the end of a run; and a page to
# explore it.


rule summary:
    input:
        study=rules.study.output,
        table=rules.table.output.csv,
        levels=rules.table.output.levels,
    output:
        md=paths.summary(),
        html=report(
            paths.summary("html"),
            caption="../report/summary.rst",
            category="Results",
            labels={"result": "summary"},
        ),
    log:
        paths.log("summary"),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        tolerance=config["tolerance"],
        command=study_command("export"),
        code=code("summary"),
    message:
        "Writing the summary"
    shell:
        'python "$SCRIPTS/summary.py" --study {input.study:q} --tolerance {params.tolerance} --command {params.command:q} '
        "--table {input.table:q} --levels {input.levels:q} --out {output.md:q} {output.html:q} --log {log:q}"


rule explore:
    input:
        table=rules.table.output.csv,
        levels=rules.table.output.levels,
    output:
        report(
            paths.explore(),
            caption="../report/explore.rst",
            category="Results",
            labels={"result": "explore"},
        ),
    log:
        paths.log("explore"),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        command=study_command("export"),
        code=code("explore"),
    message:
        "Writing the page to explore the results"
    shell:
        'python "$SCRIPTS/explore.py" --table {input.table:q} --levels {input.levels:q} --command {params.command:q} '
        "--out {output:q} --log {log:q}"
