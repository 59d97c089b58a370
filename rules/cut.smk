# The cut model as a plain Hugging Face checkpoint: bytes copied, the configuration edited. Whether removing these
# layers leaves all others as they are is checked once for all cuts of a model that are healed, so that to write one
# needs no torch. Nothing is evaluated before. Who loads a cut checks that no tensor is missing.


rule verify_cuts:
    input:
        checkpoint=paths.full(),
        order=after(cut_inputs.blocks),
    output:
        paths.verified(),
    log:
        paths.log("{model}/verify_cuts"),
    priority: 1
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        blocks=lambda wildcards: " ".join(map(str, cut_inputs.blocks(wildcards))),
        options=lambda wildcards: options.trust(study, wildcards.model),
        code=code("verify_cuts"),
    message:
        "Checking all cuts of {wildcards.model}"
    shell:
        'python "$SCRIPTS/verify_cuts.py" {params.options} --checkpoint "$(dirname {input.checkpoint:q})" '
        "--blocks {params.blocks} --out {output:q} --log {log:q}"


rule cut:
    input:
        full=paths.full(),
        order=after(cut_inputs.blocks),
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
        verify=cut_inputs.verify_option,
        code=code("cut"),
    message:
        "Cutting {wildcards.block} from {wildcards.model}"
    shell:
        'python "$SCRIPTS/cut.py" {params.options} {params.verify} --checkpoint "$(dirname {input.full:q})" --block {wildcards.block:q} '
        '--out "$(dirname {output:q})" --log {log:q}'
