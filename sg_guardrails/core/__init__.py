"""The method, pure: media, noise, vote, policy, judge. No torch, no model, no logging here."""
