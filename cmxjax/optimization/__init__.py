"""Search over layouts, placements, pools, experts and hardware, with certificates."""
