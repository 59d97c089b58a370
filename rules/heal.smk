# Healing: QLoRA on the cut checkpoint (paper, appendix A.1). How the block was chosen plays no part.


rule heal:
    input:
        checkpoint=f"{OUT}/{{model}}/checkpoints/{{block}}/manifest.json",
        tokens=lambda w: study.tokens(w.model, study.recipe(w.recipe, w.model)),
    output:
        adapter=f"{OUT}/{{model}}/{{recipe}}/{{block}}/adapter/adapter_model.safetensors",
        config=f"{OUT}/{{model}}/{{recipe}}/{{block}}/adapter/adapter_config.json",
        training=f"{OUT}/{{model}}/{{recipe}}/{{block}}/training.csv",
        summary=f"{OUT}/{{model}}/{{recipe}}/{{block}}/heal.json",
    log:
        f"{OUT}/logs/{{model}}/{{recipe}}/{{block}}.log",
    retries: healing_retries()
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.healing)
    resources:
        **needs(workloads.healing),
        tuning=lambda wildcards: study.healing_tuning(wildcards.recipe, wildcards.model),
    params:
        options=lambda wildcards: study.healing_options(
            wildcards.recipe, wildcards.model
        ),
        # Not an output: Snakemake deletes those before a rerun, and a killed run resumes from here.
        state=f"{OUT}/{{model}}/{{recipe}}/{{block}}/state",
        code=code("heal"),
    message:
        "Healing {wildcards.model} without {wildcards.block}: {wildcards.recipe}"
    # exec: SIGTERM reaches healing itself, which saves its state, also where bash is older than 5.1.
    shell:
        'exec python "$SCRIPTS/heal.py" {params.options} {resources.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.tokens:q} '
        '--out "$(dirname {output.summary:q})" --state {params.state:q} --log {log:q}'
