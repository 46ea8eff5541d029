"""TODO-DOC from cli"""

from pathlib import Path
from typing import Annotated

import typer

DataArgument = Annotated[
    str, typer.Argument(metavar="DATA", help="A folder of pictures, 'toycars', or hf://datasets/owner/name.")
]


ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A run folder, a model folder, or a shipped model: cars64.")
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]


SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of the noise.")]


SamplerOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="ancestral, ddim, euler, heun, dpmpp_2m or unipc; default: the recipe's."
    ),
]


GridOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Noise levels to visit: uniform, karras, log_snr or linear_beta; with settings as JSON,"
        ' {"name":"log_snr","sigma_min":0.02}.',
    ),
]


StepsOption = Annotated[int | None, typer.Option(metavar="N", help="Sampler steps; default: the recipe's.")]


ClassOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class", metavar="NAME", help="Ask for a class; words of its name do. Repeat for several."
    ),
]


AskOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Ask for an attribute, e.g. color=red. May be repeated."),
]


UnconditionalOption = Annotated[
    bool,
    typer.Option(
        "--unconditional",
        help="Ask for nothing; by default every kind is drawn as often as the data has it.",
    ),
]


PromptOption = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="Ask for it in words. Repeat for several."),
]


NegativeOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What guidance leads away from, a sentence or a class."),
]


GuidanceOption = Annotated[
    float, typer.Option(metavar="W", help="Classifier-free guidance towards what is asked; 1 is none.")
]


IntervalOption = Annotated[
    str | None,
    typer.Option(metavar="LO,HI", help="Noise levels sigma/alpha within which guidance acts; default: all."),
]


SagOption = Annotated[float, typer.Option(metavar="S", help="Self-attention guidance; 0 is none.")]


PagOption = Annotated[
    float | None,
    typer.Option(metavar="S", help="Perturbed-attention guidance; 0 is none.", show_default="the recipe's"),
]


SolverPagOption = Annotated[
    float | None,
    typer.Option(
        metavar="S", help="Perturbed-attention guidance; 0 is none.", show_default="by the task and the model"
    ),
]


AutoguidanceOption = Annotated[
    float, typer.Option(metavar="W", help="Guidance away from the run's early snapshot; 1 is none.")
]


ClassifierOption = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL", help="Guidance towards what is asked by a classifier (train --recipe classifier)."
    ),
]


ClassifierScaleOption = Annotated[
    float, typer.Option(metavar="S", help="How strongly the classifier guides; 0 is none.")
]


StartOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="noise, or gaussian: noise that carries the data's mean and covariance."
    ),
]


EmaOption = Annotated[
    float | None,
    typer.Option(
        "--ema",
        metavar="LENGTH",
        help="Another length of the average of the weights, as a share of the training, e.g. 0.1.",
    ),
]


ImageArgument = Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture file.")]


AnswersOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="A new folder for the answers and an overview.")
]


CountOption = Annotated[
    int, typer.Option("-n", metavar="N", help="How many answers; from two on with a map of their spread.")
]


SolverOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="ddnm, ddrm, diffpir, pigdm, mmps, perturb_and_map, dps or direct; default: by the task.",
    ),
]


SolverStepsOption = Annotated[
    int | None, typer.Option("--steps", metavar="N", help="Solver steps; default: 25.")
]


NoiseOption = Annotated[
    str,
    typer.Option(metavar="STD", help="Noise in the picture, 2 being black to white; or auto to estimate it."),
]


DEGRADATION_HELP = (
    "What happened to the image, for example downsample:4, blur:1.5+noise:0.05, motion:9,45, grayscale, "
    "jpeg:10, noise:auto, random:0.7 or mask:FILE+noise:0.1."
)
