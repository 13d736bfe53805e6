"""From an oracle log and features to a router: targets, fitting, probability calibration."""
