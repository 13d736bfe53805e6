"""A real log: what can a router gain on BlindTest (arXiv 2407.06581) at three resolutions?"""
