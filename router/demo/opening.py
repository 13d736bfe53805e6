"""From a run folder to the service that fits it."""

from __future__ import annotations

from pathlib import Path

from m3router.router.demo.budgets import Budgets
from m3router.router.demo.option_service import OptionDemoService
from m3router.router.demo.service import DemoService
from m3router.router.demo.views import AnyService
from m3router.router.inference.opening import open_pipeline
from m3router.router.inference.option_pipeline import OptionPipeline


def open_service(
    run: Path, *, model: str | None = None, policy: str = "default", device: str = "auto"
) -> AnyService:
    """Open any run with a router and a policy.

    Args:
        run: A run folder after ``train`` and ``calibrate``.
        model: The model that was labelled; None for the run's own.
        policy: Name of the policy.
        device: Where local models run.

    Raises:
        DataError: When a part is missing or damaged, or the model must be given.
        ModelError: When a model cannot be loaded.
        MismatchError: When the parts do not belong together.
    """
    pipeline = open_pipeline(run, model=model, policy=policy, device=device)
    if isinstance(pipeline, OptionPipeline):
        return OptionDemoService(pipeline, budgets=Budgets.of(run), policy=policy)
    return DemoService.of(pipeline, run, policy=policy)
