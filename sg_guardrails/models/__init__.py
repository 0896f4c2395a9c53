"""Models become callables here: a local MLLM, a speech model, text scorers. Its modules need torch."""
