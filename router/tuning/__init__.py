"""Tuning: a resumable search for the estimator, its hyper-parameters and the features it reads."""
