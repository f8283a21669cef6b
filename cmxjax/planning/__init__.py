"""Capacity planning: how many packages serve a load, at what price, and how surely."""
