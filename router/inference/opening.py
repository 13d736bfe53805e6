"""From a run folder to the pipeline that fits it."""

from __future__ import annotations

from m3router.data.errors import MismatchError
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.options import OptionModel
from m3router.router.inference.loading import reads_own_model
from m3router.router.inference.option_pipeline import OptionPipeline
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.runs.run import AnyRun, as_run
from m3router.router.training.scale_router import ScaleRouter


def open_pipeline(
    run: AnyRun,
    *,
    model: MultiScaleModel | OptionModel | str | None = None,
    policy: str = "default",
    device: str = "auto",
) -> AutoScalePipeline | OptionPipeline:
    """Load a run's model, router and policy, whatever the model is.

    A router that reads what the answering model's own tower made needs the image encoded first
    (:class:`AutoScalePipeline`: one pass of the tower for the router and every scale). Any other
    router decides before the model sees the image (:class:`OptionPipeline`).

    Args:
        run: A run folder after ``train`` and ``calibrate``.
        model: The model that was labelled, or its name, folder or hub id; None for the run's own.
        policy: Name of the policy.
        device: Where local models run.

    Raises:
        DataError: When a part is missing or damaged, or the model must be given.
        ModelError: When a model cannot be loaded.
        MismatchError: When the parts do not belong together.
    """
    run = as_run(run)
    run.need_router()
    if reads_own_model(ScaleRouter.read(run.arm())):
        if not (model is None or isinstance(model, str | MultiScaleModel)):
            raise MismatchError(
                f"the router of {run.root} reads what a Matryoshka model's own tower made, but the "
                f"model is a {type(model).__name__}; give the Matryoshka model that was labelled"
            )
        return AutoScalePipeline.load(run, model=model, policy=policy, device=device)
    if not (model is None or isinstance(model, str | OptionModel)):
        raise MismatchError(
            f"the run {run.root} needs a model that is asked by option (OptionModel), got a "
            f"{type(model).__name__}"
        )
    return OptionPipeline.load(run, model=model, policy=policy, device=device)
