# Does this machine compute what the study needs? `snakemake check` takes a minute; run it first.


rule check:
    # No output: what holds may change with each driver and each library.
    log:
        paths.log("check"),
    conda:
        "../envs/models.yaml"
    resources:
        gpu=max(study.model(name).settings["gpus"] for name in study.models),
        mem_mb=8000,
        runtime=15,
    params:
        options=options.check(study),
    message:
        "Checking what this machine computes"
    shell:
        'python "$SCRIPTS/check.py" {params.options} --threads {threads} --gpus {resources.gpu} --log {log:q}'
