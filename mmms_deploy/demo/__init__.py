"""The demo checkpoint that ships with the package, and its model card."""
