"""The command line: one file per command, each calling the stages of `m3router.router.stages`."""
