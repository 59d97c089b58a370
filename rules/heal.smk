# Healing, by default QLoRA on the cut checkpoint (paper, appendix A.1): a rule for each method, whose outputs are
# its artifact's files. How the block was chosen plays no part.


for method, module in METHODS.items():

    rule:
        name:
            rule_name(method)
        input:
            checkpoint=paths.checkpoint(),
            tokens=inputs.healing_tokens,
            full=inputs.healing_full,
            repair=inputs.healing_repair,
        output:
            artifact=[*map(paths.healed, healing_method(method).artifact_files)],
            others=[*map(paths.healed, healing_method(method).WRITES)],
            summary=paths.healed("heal.json"),
        log:
            paths.log("{model}/{recipe}/{block}"),
        wildcard_constraints:
            recipe=names([r for r in study.recipes if study.method_name(r) == method]),
        retries: healing_retries(workloads)
        conda:
            "../envs/models.yaml"
        threads: threads_for(workloads.healing)
        resources:
            **needs(workloads.healing),
        params:
            options=lambda wildcards: options.heal(
                study, wildcards.recipe, wildcards.model
            ),
            tuning=lambda wildcards, input: options.heal_tuning(
                study, wildcards.recipe, wildcards.model
            ),
            files=healing_option,
            # Not an output: Snakemake deletes those before a rerun, and a killed run resumes from here.
            state=paths.healed("state"),
            code=code("heal", f"healing/{module}"),
        message:
            "Healing {wildcards.model} without {wildcards.block}: {wildcards.recipe}"
        # exec: SIGTERM reaches healing itself, which saves its state, also where bash is older than 5.1.
        shell:
            'exec python "$SCRIPTS/heal.py" {params.options} {params.tuning} --threads {threads} --gpus {resources.gpu} '
            '--checkpoint "$(dirname {input.checkpoint:q})" {params.files} '
            '--out "$(dirname {output.summary:q})" --state {params.state:q} --log {log:q}'
