"""`m3router label`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from m3router.m3core.checkpoints.places import EMBEDDED
from m3router.m3core.options import OptionModel
from m3router.router.cli import next_steps
from m3router.router.cli.console import progress
from m3router.router.cli.endpoint_options import (
    IN_FLIGHT,
    REQUEST_TIMEOUT,
    CostUnitOption,
    Endpoint,
    EndpointArguments,
    InFlight,
    KeyFile,
    KeyVariable,
    MaxRequests,
    OptionsFile,
    PresetName,
    PriceOption,
    RequestTimeout,
    connect_from,
)
from m3router.router.cli.exit_codes import SOME_FAILED
from m3router.router.cli.judge import judge as have_judged
from m3router.router.cli.options import (
    Bits,
    Device,
    DeviceMap,
    Dtype,
    FeatureGroups,
    Frames,
    Grids,
    ModelOptions,
    Pooling,
    Questions,
    UnlistedGrids,
    folder_to_write,
    images_folder,
)
from m3router.router.cli.toys import say_if_toy
from m3router.router.runs.run import Run


class Scoring(StrEnum):
    """Where scores come from."""

    GENERATE = "generate"
    REFERENCES = "references"


def label(
    examples: Annotated[
        Path,
        typer.Option(
            help="Questions about images: JSON Lines, JSON, CSV, TSV, Parquet, Excel, or a saved "
            "dataset's folder; with the columns image, question and answers.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write.", show_default=False)],
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder that relative image paths start from. [default: that of --examples, or "
            "images in it]",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="embedded, fake, module:function, or folder or hub id of a Matryoshka or "
            "vision-language model; with --endpoint the model's name there.",
            show_default="embedded",
        ),
    ] = None,
    option: ModelOptions = None,
    endpoint: Endpoint = None,
    options: OptionsFile = None,
    preset: PresetName = None,
    key_env: KeyVariable = None,
    key_file: KeyFile = None,
    in_flight: InFlight = IN_FLIGHT,
    request_timeout: RequestTimeout = REQUEST_TIMEOUT,
    max_requests: MaxRequests = None,
    price: PriceOption = None,
    cost_unit: CostUnitOption = None,
    device: Device = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Number format of the model.")] = Dtype.FLOAT32,
    device_map: DeviceMap = None,
    bits: Bits = None,
    pooling: Annotated[
        Pooling,
        typer.Option(
            help="How coarser scales are made: average as trained, or M3's two heuristics."
        ),
    ] = Pooling.AVERAGE,
    grids: Grids = None,
    unlisted_grids: UnlistedGrids = False,
    frames: Frames = 6,
    until_correct: Annotated[
        bool,
        typer.Option(
            "--until-correct",
            help="Ask from the coarsest scale up to the first right answer; finer ones stay "
            "unknown. For training with --rule reached.",
        ),
    ] = False,
    scoring: Annotated[
        Scoring,
        typer.Option(
            help="Generate and score answers, or score the references' probabilities in one pass "
            "(soft labels)."
        ),
    ] = Scoring.GENERATE,
    verify: Annotated[
        int,
        typer.Option(
            min=0,
            help="Ask so many examples again one by one, and record how often answers differ.",
        ),
    ] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read images ahead.", show_default="none on a CPU"),
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most tokens computed in one call; halved by itself where memory runs out.",
            show_default="what fits",
        ),
    ] = None,
    questions: Questions = "model",
    feature_groups: FeatureGroups = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Image encoder that the router reads, for a model that is no Matryoshka model: "
            "folder or hub id of a CLIP or SigLIP model.",
            show_default="none",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of the longest answer, for all examples, whatever they say themselves.",
            show_default="each example's max_new_tokens, or the model's 16",
        ),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again what failed in an earlier run.")
    ] = False,
    skip_missing: Annotated[
        bool,
        typer.Option(
            "--skip-missing",
            help="Go on although more than a tenth of the images are not there.",
        ),
    ] = False,
    drop_removed: Annotated[
        bool,
        typer.Option(
            "--drop-removed",
            help="Leave examples out of the run's log that --examples no longer has.",
        ),
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Have the answers scored by a language model behind this endpoint, as `m3router "
            "judge` does, which has more options.",
            show_default=False,
        ),
    ] = None,
    judge_model: Annotated[
        str | None,
        typer.Option(help="With --judge: the server's name of the judge.", show_default=False),
    ] = None,
    judge_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --judge: environment variable that holds its key.",
            show_default="no key",
        ),
    ] = None,
) -> None:
    r"""Ask the model every question at every option.

    Examples may be in any table or dataset (docs/own-data.md). Where they have no answers, an
    answer counts as right if the finest option says the same. Images are looked for first: nothing
    is asked where more than a tenth of them are missing. The same command with more examples adds
    these: answers that are there stay.

    Options are the scales of a Matryoshka model, the visual budgets of any other vision-language
    model (docs/families.md lists them), what an endpoint's options file says (docs/endpoints.md),
    or a function's. Writes the oracle log and the features. An interrupted run goes on where it
    stopped. Images and questions that cannot be used become error records; then the exit code is
    3. A video is shown as a collage of frames, so its tokens are those of all frames.

    An answer ends where the model ends it, or at the longest length: --max-new-tokens, else the
    example's own `max_new_tokens` (which `fetch` takes from the benchmark), else 16 tokens. The log
    says which answers were cut. A run goes on only with the lengths that it began with.

    On SIGTERM, and on Ctrl-C unless the model is a Matryoshka model, what is in flight is finished
    and kept, and the same command goes on later. Several processes share the work when they are
    started by torchrun or accelerate.

    ```
    m3router label --examples my.csv --images images/ --model embedded --out run/
    m3router label --examples my.jsonl --images images/ --model Qwen/Qwen3-VL-2B-Instruct --out run/
    m3router label --examples my.jsonl --images images/ --model google/gemma-4-E2B-it \
        --option 'low={"max_soft_tokens": 70}' --option 'high={"max_soft_tokens": 560}' --out run/
    m3router label --examples my.jsonl --images images/ --model reader:answer \
        --option small --option large --out run/
    m3router label --examples my.jsonl --images images/ --endpoint http://localhost:8000/v1 \
        --preset vllm-qwen3-vl --out run/
    torchrun --nproc-per-node 4 -m m3router label --examples my.jsonl --images images/ --out run/
    ```
    """
    from m3router.m3core.labelling import LabelMode
    from m3router.m3core.labelling.images import workers_for
    from m3router.m3core.labelling.ranks import Ranks
    from m3router.m3core.labelling.rows import label_mode
    from m3router.m3core.matryoshka.base import MultiScaleModel
    from m3router.m3core.matryoshka.batching import limits_for  # this and the following load torch
    from m3router.m3core.opening import open_model, parse_options
    from m3router.router.cli.label_examples import Growth, read_examples, say_agreement
    from m3router.router.cli.labelling import (
        kept_when_stopped,
        label_with_progress,
        show_errors,
        show_flips,
    )
    from m3router.router.stages.labelling import verify_stage

    if until_correct and scoring is Scoring.REFERENCES:
        raise typer.BadParameter(
            "--until-correct needs answers that are right or wrong; it cannot be combined with "
            "--scoring references"
        )
    if until_correct and judge is not None:
        raise typer.BadParameter(
            "--until-correct needs to know at once whether an answer is right; it cannot be "
            "combined with --judge, which tells it afterwards"
        )
    if (judge is None) != (judge_model is None) or (judge_key_env and judge is None):
        raise typer.BadParameter(
            "--judge and --judge-model go together: an endpoint's address and the judge's name"
        )
    mode = LabelMode.UNTIL_CORRECT if until_correct else LabelMode.ALL
    mode = LabelMode.REFERENCES if scoring is Scoring.REFERENCES else mode
    _refuse_ignored(
        endpoint,
        only_local={
            "--option": option,
            "--device": device != "auto",
            "--dtype": dtype is not Dtype.FLOAT32,
            "--device-map": device_map,
            "--bits": bits,
            "--pooling": pooling is not Pooling.AVERAGE,
            "--grids": grids,
            "--unlisted-grids": unlisted_grids,
            "--scoring references": scoring is Scoring.REFERENCES,
            "--workers": workers is not None,
            "--batch-tokens": batch_tokens,
        },
        only_endpoint={
            "--options": options,
            "--preset": preset,
            "--key-env": key_env,
            "--key-file": key_file,
            "--in-flight": in_flight != IN_FLIGHT,
            "--request-timeout": request_timeout != REQUEST_TIMEOUT,
            "--max-requests": max_requests,
            "--price": price,
            "--cost-unit": cost_unit,
        },
    )
    ranks = Ranks.current()
    run = Run(folder_to_write(out))
    images_folder(images)
    growth = Growth(run)
    items = read_examples(
        examples, run, images=images, skip_missing=skip_missing, quiet=not ranks.is_first
    )
    mode = label_mode(items, mode)  # refuses what cannot share a log, before a model is loaded
    matryoshka: dict[str, Any] = {
        "device_map": device_map,
        "bits": bits,
        "pooling": None if pooling is Pooling.AVERAGE else pooling.value,
        "grids": grids,
        "unlisted_grids": unlisted_grids,
    }
    loaded: MultiScaleModel | OptionModel
    if endpoint is None:
        loaded = open_model(
            EMBEDDED if model is None else model,
            device=device,
            dtype=dtype.value,
            options=parse_options(option),
            **{name: value for name, value in matryoshka.items() if value},
        )
    else:
        loaded = connect_from(
            EndpointArguments(
                url=endpoint,
                model=model,
                options=options,
                preset=preset,
                key_env=key_env,
                key_file=key_file,
                in_flight=in_flight,
                request_timeout=request_timeout,
                max_requests=max_requests,
                price=price,
                cost_unit=cost_unit,
                max_new_tokens=max_new_tokens,
            )
        )
    if ranks.is_first:
        if endpoint is None:
            say_if_toy(model)
        say_agreement(mode, loaded)
    where = str(getattr(getattr(loaded, "model", None), "device", "cpu")).split(":")[0]
    with kept_when_stopped(terminated=0):
        log = label_with_progress(
            run,
            items,
            images=items.images,
            model=loaded,
            retry_errors=retry_errors,
            max_new_tokens=max_new_tokens,
            questions=questions,
            feature_groups=feature_groups,
            frames=frames,
            mode=mode,
            workers=workers_for(where, ranks.local) if workers is None else workers,
            limits=limits_for(loaded, tokens=batch_tokens)
            if isinstance(loaded, MultiScaleModel)
            else None,
            encoder=encoder,
            ranks=ranks,
            grow=True,
            drop_removed=drop_removed,
        )
    if not ranks.is_first:
        return
    growth.show(items)
    if verify:
        with progress("asking again") as advance:
            found = verify_stage(
                run,
                items,
                images=items.images,
                model=loaded,
                count=verify,
                frames=frames,
                progress=lambda done, total: advance(done, total, ""),
            )
        show_flips(found)
    if judge is not None and judge_model is not None:
        have_judged(out, judge, judge_model, examples=examples, key_env=judge_key_env)
        log = run.log(as_labelled=True)
    failed = show_errors(log)
    next_steps.after_label(run, log)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _refuse_ignored(
    endpoint: str | None, *, only_local: Mapping[str, Any], only_endpoint: Mapping[str, Any]
) -> None:
    """Refuse options that would be ignored.

    Raises:
        BadParameter: If there are any.
    """
    ignored = only_endpoint if endpoint is None else only_local
    told = [name for name, given in ignored.items() if given]
    if told and endpoint is None:
        raise typer.BadParameter(f"{', '.join(told)}: only an endpoint reads it; give --endpoint")
    if told:
        raise typer.BadParameter(
            f"{', '.join(told)}: an endpoint has no use for it; its options are in --options FILE "
            "or --preset NAME"
        )
