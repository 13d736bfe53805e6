"""The router: features, estimators, policies, pipeline, metrics, evaluation and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.router.evaluation.evaluate import evaluate as evaluate
    from m3router.router.evaluation_document import Evaluation as Evaluation
    from m3router.router.features.table import FeatureTable as FeatureTable
    from m3router.router.inference.pipeline import AutoScalePipeline as AutoScalePipeline
    from m3router.router.policies.policy import Policy as Policy
    from m3router.router.runs.run import Run as Run
    from m3router.router.stages.evaluating import evaluate_stage as evaluate_stage
    from m3router.router.stages.labelling import label_stage as label_stage
    from m3router.router.stages.learning import calibrate_stage as calibrate_stage
    from m3router.router.stages.learning import train_stage as train_stage
    from m3router.router.stages.reporting import report_stage as report_stage
    from m3router.router.training.fit import train_router as train_router
    from m3router.router.training.scale_router import ScaleRouter as ScaleRouter
    from m3router.router.version import __version__ as __version__

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "__version__": "m3router.router.version",
            "AutoScalePipeline": "m3router.router.inference.pipeline",
            "Evaluation": "m3router.router.evaluation_document",
            "FeatureTable": "m3router.router.features.table",
            "Policy": "m3router.router.policies.policy",
            "Run": "m3router.router.runs.run",
            "ScaleRouter": "m3router.router.training.scale_router",
            "calibrate_stage": "m3router.router.stages.learning",
            "evaluate": "m3router.router.evaluation.evaluate",
            "evaluate_stage": "m3router.router.stages.evaluating",
            "label_stage": "m3router.router.stages.labelling",
            "report_stage": "m3router.router.stages.reporting",
            "train_router": "m3router.router.training.fit",
            "train_stage": "m3router.router.stages.learning",
        },
    )
