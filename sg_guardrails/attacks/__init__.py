"""Adversarial pictures for any Hugging Face MLLM; needs torch, knows models, never the guard."""
