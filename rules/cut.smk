# The cut model as a plain Hugging Face checkpoint: bytes copied, the configuration edited, then loaded once.


rule cut:
    input:
        paths.full(),
    output:
        paths.checkpoint(),
    log:
        paths.log("{model}/checkpoints/{block}"),
    wildcard_constraints:
        block=CUT_PATTERN,
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: options.trust(study, wildcards.model),
        code=code("cut"),
    message:
        "Cutting {wildcards.block} from {wildcards.model}"
    shell:
        'python "$SCRIPTS/cut.py" {params.options} --checkpoint "$(dirname {input:q})" --block {wildcards.block:q} '
        '--out "$(dirname {output:q})" --verify --log {log:q}'
