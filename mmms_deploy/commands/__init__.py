"""The commands; each module's ``main`` is one."""
