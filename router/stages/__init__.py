"""The stages of a run: functions that read and write a run folder; the commands only call them."""
