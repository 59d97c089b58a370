# Healing: QLoRA on the cut checkpoint (paper, appendix A.1). How the block was chosen plays no part.


rule heal:
    input:
        checkpoint=paths.checkpoint(),
        tokens=lambda w: study.tokens(w.model, study.recipe(w.recipe, w.model)),
    output:
        adapter=paths.healed("adapter/adapter_model.safetensors"),
        config=paths.healed("adapter/adapter_config.json"),
        training=paths.healed("training.csv"),
        summary=paths.healed("heal.json"),
    log:
        paths.log("{model}/{recipe}/{block}"),
    retries: healing_retries(workloads)
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.healing)
    resources:
        **needs(workloads.healing),
        tuning=lambda wildcards: options.heal_tuning(
            study, wildcards.recipe, wildcards.model
        ),
    params:
        options=lambda wildcards: options.heal(study, wildcards.recipe, wildcards.model),
        # Not an output: Snakemake deletes those before a rerun, and a killed run resumes from here.
        state=paths.healed("state"),
        code=code("heal"),
    message:
        "Healing {wildcards.model} without {wildcards.block}: {wildcards.recipe}"
    # exec: SIGTERM reaches healing itself, which saves its state, also where bash is older than 5.1.
    shell:
        'exec python "$SCRIPTS/heal.py" {params.options} {resources.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.tokens:q} '
        '--out "$(dirname {output.summary:q})" --state {params.state:q} --log {log:q}'
