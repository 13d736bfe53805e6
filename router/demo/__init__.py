"""The pipeline in a browser: a picture, a question, and how few visual tokens it needs.

The extra ``demo``. Only `router.demo.page` and `router.demo.serving` need it.
"""
