"""The router: features, estimators, policies, pipeline and analysis."""
