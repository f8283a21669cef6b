"""Replicas of experts and their placement on devices, from loads."""
