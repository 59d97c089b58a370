# What the study will cost, before anything of it runs: snakemake plan.


rule plan:
    # No output, since what is done already changes: it is told anew each time.
    log:
        f"{OUT}/logs/plan.log",
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        config=json.dumps(config),
        page=f"{OUT}/plan.md",
    message:
        "What the study will cost"
    shell:
        'python "$SCRIPTS/plan.py" --out {params.page:q} --log {log:q} <<< {params.config:q}'
