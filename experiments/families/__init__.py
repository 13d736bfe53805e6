"""Current vision-language models: what their options cost, by arithmetic on their configurations.

``configs`` holds the sizes of published models, as their ``config.json`` gives them; whoever builds
these models finds as many weights as the published files have (``tests/experiments``). ``record``
counts tokens and patches with the real image processors, ``page`` writes ``docs/families.md``.
"""
