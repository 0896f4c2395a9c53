"""Trains and measures the built-in tiny multimodal model, ``builtin:shapes``."""
