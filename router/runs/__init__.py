"""Run folders: where stages keep their files, and proof that they belong together."""
