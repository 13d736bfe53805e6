"""Speed, as ratios within one run: ``speed``, ``mqt`` and, for a GPU, ``prefill_7b``."""
