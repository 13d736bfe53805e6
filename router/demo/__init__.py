"""The pipeline in a browser: a picture, a question, and how few visual tokens it needs.

The extra ``demo``. Only `m3router.router.demo.page` and `m3router.router.demo.serving` need it.
"""
