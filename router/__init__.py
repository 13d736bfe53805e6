"""The router: features, estimators, policies, pipeline, metrics, evaluation and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.registry import exports

if TYPE_CHECKING:
    from router.evaluation.evaluate import evaluate as evaluate
    from router.evaluation.evaluate_run import evaluate_stage as evaluate_stage
    from router.features.table import FeatureTable as FeatureTable
    from router.inference.pipeline import AutoScalePipeline as AutoScalePipeline
    from router.policies.policy import Policy as Policy
    from router.reports.report_run import report_stage as report_stage
    from router.runs.run import Run as Run
    from router.scale_router import ScaleRouter as ScaleRouter
    from router.stages.labelling import label_stage as label_stage
    from router.stages.learning import calibrate_stage as calibrate_stage
    from router.stages.learning import train_stage as train_stage
    from router.training import train_router as train_router
    from router.version import __version__ as __version__

__getattr__ = exports(
    __name__,
    {
        "__version__": "router.version",
        "AutoScalePipeline": "router.inference.pipeline",
        "FeatureTable": "router.features.table",
        "Policy": "router.policies.policy",
        "Run": "router.runs.run",
        "ScaleRouter": "router.scale_router",
        "calibrate_stage": "router.stages.learning",
        "evaluate": "router.evaluation.evaluate",
        "evaluate_stage": "router.evaluation.evaluate_run",
        "label_stage": "router.stages.labelling",
        "report_stage": "router.reports.report_run",
        "train_router": "router.training",
        "train_stage": "router.stages.learning",
    },
)
