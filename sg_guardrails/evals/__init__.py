"""The paper's evaluations: benchmarks read as their owners publish them, one resumable run, scores and reports."""
