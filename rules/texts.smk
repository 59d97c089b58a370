# Texts: the invented world with its questions, samples of files and data sets, every text tokenised once per model,
# and what a model writes itself.


rule world:
    output:
        train=paths.text(split="train"),
        calibration=paths.text(split="calibration"),
        validation=paths.text(split="validation"),
        tasks=paths.task_files(WORLD_TASKS),
    log:
        paths.log("texts/{text}"),
    wildcard_constraints:
        text=names(study.generated_texts),
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: options.world(study, wildcards.text),
        code=code("world"),
    message:
        "Writing the world {wildcards.text}: documents and questions"
    shell:
        'python "$SCRIPTS/world.py" {params.options} --out "$(dirname {output.train:q})" --log {log:q}'


rule sample:
    output:
        text=paths.text(),
        summary=paths.text(ending="json"),
    log:
        paths.log("texts/{text}-{split}"),
    wildcard_constraints:
        text=names(study.sampled_texts),
    # Where Snakemake itself runs: the nodes of a cluster often have no network.
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        options=lambda wildcards: options.sample(study, wildcards.text, wildcards.split),
        fingerprint=lambda wildcards: text_fingerprint(
            study.config["texts"][wildcards.text]["source"]
        ),
        code=code("sample"),
    message:
        "Sampling documents of {wildcards.text}, {wildcards.split}"
    shell:
        'python "$SCRIPTS/sample.py" {params.options} --out {output.text:q} --log {log:q}'


rule continue_text:
    input:
        prompts=inputs.prompts,
        checkpoint=paths.full(),
    output:
        summary=paths.tokens(),
        tokens=paths.tokens(ending="safetensors"),
    log:
        paths.log("{model}/tokens/{text}-{split}"),
    wildcard_constraints:
        text=names(study.continued_texts),
    conda:
        "../envs/models.yaml"
    threads: threads_for(workloads.continuing)
    resources:
        **needs(workloads.continuing),
    params:
        options=lambda wildcards: options.continue_text(
            study, wildcards.text, wildcards.split, wildcards.model
        ),
        tuning=lambda wildcards, input: options.continue_text_tuning(
            study, wildcards.text
        ),
        code=code("continue_text"),
    message:
        "Letting {wildcards.model} write {wildcards.text}, {wildcards.split}"
    shell:
        'python "$SCRIPTS/continue_text.py" {params.options} {params.tuning} --threads {threads} --gpus {resources.gpu} '
        '--checkpoint "$(dirname {input.checkpoint:q})" --tokens {input.prompts:q} --out {output.summary:q} --log {log:q}'


rule tokenise:
    input:
        text=paths.text(),
        checkpoint=paths.full(),
    output:
        # The summary is what later stages depend on; the tokens lie beside it.
        summary=paths.tokens(),
        tokens=paths.tokens(ending="safetensors"),
    log:
        paths.log("{model}/tokens/{text}-{split}"),
    wildcard_constraints:
        text=names([*study.generated_texts, *study.sampled_texts]),
    conda:
        "../envs/models.yaml"
    resources:
        **LIGHT,
    params:
        options=lambda wildcards: options.trust(study, wildcards.model),
        code=code("tokenise"),
    message:
        "Tokenising {wildcards.text}, {wildcards.split}, for {wildcards.model}"
    shell:
        'python "$SCRIPTS/tokenise.py" {params.options} --checkpoint "$(dirname {input.checkpoint:q})" '
        "--text {input.text:q} --out {output.summary:q} --log {log:q}"
