"""From a checkpoint to a bundle: whole-graph export, the cut, the parity gate. Needs the ``[export]`` extra."""
