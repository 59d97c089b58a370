# What the results will hold, once the blocks are chosen: which cuts each recipe heals is decided here, and read
# by all that gathers results.


rule study:
    input:
        order=after(inputs.contents),
    output:
        paths.study(),
    log:
        paths.log("study"),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        contents=lambda wildcards: json.dumps(asdict(inputs.contents())),
    message:
        "Noting what is studied"
    shell:
        "printf '%s\\n' {params.contents:q} > {output:q} 2> {log:q}"
