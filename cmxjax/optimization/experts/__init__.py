"""Replicas of experts and their placement on devices, from measured or synthetic loads."""
