"""Pages and figures about runs: the report of one run, and the comparison of several."""
