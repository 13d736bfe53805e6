"""Real logs of published models: does the default router beat five lines of scikit-learn?"""
