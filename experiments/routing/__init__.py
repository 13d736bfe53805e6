"""Routers on drawn scenes: feature groups, estimators, guarantees, cascades and baselines."""
