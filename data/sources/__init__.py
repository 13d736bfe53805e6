"""Where examples come from: files of the user's, instructions, and published benchmarks."""
