# Which block each strategy removes for each n. A checkpoint: what follows names the block, not n or the
# strategy, so equal blocks are computed once and an unchanged choice reruns nothing.


checkpoint blocks:
    input:
        checkpoint=paths.full(),
        evidence=[paths.evidence(name) for name in study.evidence],
    output:
        paths.blocks(),
    log:
        paths.log("{model}/blocks"),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        options=lambda wildcards: options.blocks(study, wildcards.model),
        evidence=evidence_options,
        code=code("blocks"),
    message:
        "Choosing the blocks of {wildcards.model}"
    shell:
        'python "$SCRIPTS/blocks.py" {params.options} {params.evidence} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --out {output:q} --log {log:q}'
