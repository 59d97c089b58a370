# The figures, each a job of its own: those of a model, and those that show all models together. What each
# is drawn from, its options and its caption are in scripts/deeper_layers/reporting/figures/registry.py.


rule figure_model:
    input:
        table=paths.table(),
        levels=paths.levels(),
    output:
        svg=report(
            paths.figure("svg"),
            caption="../report/figure.rst",
            category="{model}",
            labels={"result": "{figure}"},
        ),
        pdf=paths.figure("pdf"),
        png=paths.figure("png"),
    log:
        paths.log("figures/{model}/{figure}"),
    wildcard_constraints:
        figure=names(figures.of_model(study)),
    localrule: True
    conda:
        "../envs/workflow.yaml"
    params:
        models=lambda wildcards: options.command_line({"models": [wildcards.model]}),
        options=lambda wildcards: options.figure(study, wildcards.figure),
        code=figure_code,
        # Derived from the input, as Snakemake sees it, so that neither a path nor a caption reruns anything.
        files=lambda wildcards, input: options.command_line(dict(input.items())),
        caption=lambda wildcards, input: FIGURES[wildcards.figure].caption,
    message:
        "Drawing {wildcards.figure} of {wildcards.model}"
    shell:
        'python "$SCRIPTS/figure.py" {wildcards.figure:q} {params.models} {params.options} {params.files} '
        '--formats svg pdf png --out "$(dirname {output.png:q})"/{wildcards.figure:q} --log {log:q}'


use rule figure_model as figure_distances with:
    input:
        distances=paths.distances(),
    wildcard_constraints:
        figure=names(figures.of_distances(study)),
    params:
        models="",


use rule figure_model as figure_speed with:
    input:
        speed=paths.speed(),
    wildcard_constraints:
        figure="speed",  # also by itself: snakemake speed
    params:
        models="",


use rule figure_model as figure_study with:
    output:
        svg=report(
            paths.study_figure("svg"),
            caption="../report/figure.rst",
            category="Results",
            labels={"result": "{figure}"},
        ),
        pdf=paths.study_figure("pdf"),
        png=paths.study_figure("png"),
    log:
        paths.log("figures/{figure}"),
    wildcard_constraints:
        figure=names(figures.of_study(study)),
    params:
        models="",
    message:
        "Drawing {wildcards.figure} of all models"


rule figures:
    input:
        expand(
            paths.figure("{kind}"),
            model=study.models,
            figure=figures.of_distances(study)
            + figures.of_speed(study)
            + figures.of_model(study),
            kind=KINDS,
        ),
        expand(paths.study_figure("{kind}"), figure=figures.of_study(study), kind=KINDS),
