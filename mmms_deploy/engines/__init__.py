"""The backends that execute a bundle's stages, one file each, behind one small protocol."""
