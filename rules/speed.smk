# Memory and speed of every cut, measured in one process: `snakemake speed`, or with the study (study.speed).


rule measure_speed:
    input:
        checkpoint=paths.full(),
        order=after(inputs.pruned_blocks),
    output:
        speed=paths.speed(),
        summary=paths.speed(ending="json"),
    log:
        paths.log("{model}/speed"),
    conda:
        "../envs/models.yaml"
    # All cores of this machine, so that no other job runs beside it.
    threads: lambda w: workflow.cores or workloads.speed(w.model).threads
    resources:
        **needs(workloads.speed),
    params:
        blocks=lambda wildcards: " ".join(map(str, inputs.pruned_blocks(wildcards))),
        options=lambda wildcards: options.measure_speed(study, wildcards.model),
        threads=threads_for(workloads.speed),
        code=code("measure_speed"),
    message:
        "Measuring memory and speed of all cuts of {wildcards.model}"
    shell:
        'python "$SCRIPTS/measure_speed.py" {params.options} --threads {params.threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --blocks {params.blocks} --out {output.speed:q} --log {log:q}'


rule speed:
    input:
        expand(paths.speed(), model=study.models),
        expand(paths.figure("{kind}", "speed"), model=study.models, kind=KINDS),
    localrule: True
