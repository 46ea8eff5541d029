"""Exporting a model: the target's files and the parity report, in a folder that is whole or not there."""

from collections.abc import Iterator
from pathlib import Path

from alphabar.errors import UsageError
from alphabar.export import TARGETS
from alphabar.export.base import Export, Target
from alphabar.export.parity import Parity, compare_samples, write_parity
from alphabar.files import writing_folder
from alphabar.messages import message
from alphabar.metrics.distances import KID_NEEDS
from alphabar.progress import Progress, staged
from alphabar.registry import Spec
from alphabar.result_folder import check_free
from alphabar.runs.model import Model
from alphabar.sampling.bound import bind_settings
from alphabar.sampling.settings import SamplingSettings, sampling_settings

LEAST = 2 * KID_NEEDS  # samples of a parity report, which compares halves


def export_to(
    model: Model,
    target: Spec,
    out: str | Path,
    *,
    settings: SamplingSettings | None = None,
    precision: str | None = None,
    n: int = 64,
    against: str | Path | None = None,
    language: str | None = None,
) -> Iterator[Progress[Parity]]:
    """Writes a model into the folder ``out`` as files that generate the same samples without it.

    target: the name of an export target, or its name and settings. settings: of the sampling that the export
        does by default; those of the model's recipe where none are given. precision: of the exported network;
        by default the first that the target has.
    n: samples of the parity report. against: data as for training, with which both models' samples are
        compared there; otherwise they are compared with each other. language: of parity.md, "en" or "es"; by
        default the reader's.

    Yields records; the last one carries the `Parity`. Raises UsageError for an unknown target, a precision
    that it lacks, n below `LEAST` and a model that generates no samples; AlphabarError where the extra that
    the target needs is missing, ``out`` is not free, or the disk is full. Nothing half-written stays.
    """
    out, chosen = Path(out), TARGETS.build(target)
    if n < LEAST:
        raise UsageError("export.too_few_samples", n=n, least=LEAST)
    export = Export(model, settings or sampling_settings(model), precision or chosen.precisions[0])
    bind_settings(model, export.settings).condition_rows(range(1))  # raises for what the model cannot do
    chosen.check(export)
    check_free(out)
    name = TARGETS.resolve(target)["name"]
    return _export(chosen, name, export, out, n, against, language)


def _export(
    target: Target,
    name: str,
    export: Export,
    out: Path,
    n: int,
    against: str | Path | None,
    language: str | None,
) -> Iterator[Progress[Parity]]:
    with writing_folder(out, flush=True) as folder:
        about = yield from staged(target.write(export, folder))
        sampler = target.load(export, folder)
        parity = yield from compare_samples(export, name, sampler, folder, n, against, about)
        write_parity(parity, folder, language)
    yield Progress(message("export.done"), 1, 1, parity)
