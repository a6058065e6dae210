"""From image and modality files to the network's tensors, and from probabilities back to masks."""
