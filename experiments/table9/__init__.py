"""M3's Table 9, computed: ``python -m experiments.table9``."""
