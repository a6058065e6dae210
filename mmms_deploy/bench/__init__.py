"""``mmms-bench``: what a bundle costs on this machine; every number from a measurement of that run."""
