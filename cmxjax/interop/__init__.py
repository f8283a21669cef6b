"""Launch settings of other tools for a scenario's layout."""
