# Estimate the study's cost (jobs, GPU hours, disk) without running it: snakemake plan.


rule plan:
    # No output, since what is done already changes: the plan is made anew each time.
    log:
        paths.log("plan"),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        config=json.dumps(config),
        page=paths.plan(),
    message:
        "Estimating the study's cost (jobs, GPU hours, disk) without running it"
    shell:
        'python "$SCRIPTS/plan.py" --out {params.page:q} --log {log:q} <<< {params.config:q}'
