"""Statistics over a workflow's runs, and the report page."""
