# Losses of the cuts that strategies choose from, which share what they have in common. What was measured is kept
# beside, so that another n costs only what is new, and a job that was killed goes on where it was.


rule losses:
    input:
        checkpoint=paths.full(),
        tokens=lambda w: study.tokens(w.model, measured(config, w.evidence)),
    output:
        losses=paths.evidence("{evidence}"),
        summary=paths.evidence("{evidence}", ending="json"),
    log:
        paths.log("{model}/{evidence}"),
    wildcard_constraints:
        evidence=names(of_section(study.evidence, "losses")),
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.losses)
    resources:
        **needs(workloads.losses),
    params:
        options=lambda wildcards: options.losses(
            study, wildcards.model, wildcards.evidence
        ),
        tuning=lambda wildcards, input: options.losses_tuning(study),
        code=code("losses"),
    message:
        "Measuring the losses that choose layers of {wildcards.model}: {wildcards.evidence}"
    shell:
        'python "$SCRIPTS/losses.py" {params.options} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.tokens:q} --code {params.code} '
        "--out {output.losses:q} --log {log:q}"
