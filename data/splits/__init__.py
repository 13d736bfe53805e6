"""Which examples are for training, validation, calibration and test; no image is in two parts."""
