# The cut model as a plain Hugging Face checkpoint: bytes copied, the configuration edited, then loaded once.


rule cut:
    input:
        f"{OUT}/{{model}}/checkpoints/full/manifest.json",
    output:
        f"{OUT}/{{model}}/checkpoints/{{block}}/manifest.json",
    log:
        f"{OUT}/logs/{{model}}/checkpoints/{{block}}.log",
    wildcard_constraints:
        block=CUT_PATTERN,
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: study.trust_options(wildcards.model),
        code=code("cut"),
    message:
        "Cutting {wildcards.block} from {wildcards.model}"
    shell:
        'python "$SCRIPTS/cut.py" {params.options} --checkpoint "$(dirname {input:q})" --block {wildcards.block:q} '
        '--out "$(dirname {output:q})" --verify --log {log:q}'
