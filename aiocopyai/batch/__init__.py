"""Run a workflow for each row of a file, resumable after a crash."""
