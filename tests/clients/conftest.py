collect_ignore = ["scripts"]  # run in the environments of their clients, not imported here
