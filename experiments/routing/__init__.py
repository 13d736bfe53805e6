"""Routers on drawn scenes: feature tiers, estimators, guarantees, cascades and baselines."""
