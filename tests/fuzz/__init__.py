"""Seeded fuzzers: images, request bodies and artefacts; see CONTRIBUTING.md.

A *target* is a module of this folder with two functions. ``cases(seed)`` yields cases without end,
always the same for a seed; ``check(case)`` returns where a case was dealt with as it must be, and
raises anything else where it was not. A target may also have ``LIMITS``, see
:class:`tests.fuzz.driver.Limits`.
"""
