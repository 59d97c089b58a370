# The answer: how many layers can go, which, and what that saves. Also printed at the end of a run.


rule summary:
    input:
        table=f"{OUT}/table.csv",
        levels=f"{OUT}/levels.csv",
    output:
        md=f"{OUT}/summary.md",
        html=report(
            f"{OUT}/summary.html",
            caption="../report/summary.rst",
            category="Results",
            labels={"result": "summary"},
        ),
    log:
        f"{OUT}/logs/summary.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        options=study.summary_options(),
        command=study_command("export"),
        code=code("summary"),
    message:
        "Writing the summary"
    shell:
        'python "$SCRIPTS/summary.py" {params.options} --command {params.command:q} '
        "--table {input.table:q} --levels {input.levels:q} --out {output.md:q} {output.html:q} --log {log:q}"
