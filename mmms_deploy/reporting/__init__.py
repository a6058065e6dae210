"""What reports are made of: plots, the shell of an HTML page, and writing files whole or not at all."""
