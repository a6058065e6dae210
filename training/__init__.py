"""Training of the demo checkpoint: drawn scenes and DAVIS frames, simulated clicks, a small MMMS."""
