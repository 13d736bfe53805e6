"""Current vision-language models: what their options cost, by arithmetic on their configurations.

``configs`` holds the sizes of public models, entered by hand: their files could not be fetched. The
models have as many weights as is said of the published ones (``tests/experiments``). ``record``
counts tokens and patches with the real image processors, ``page`` writes ``docs/families.md``.
"""
