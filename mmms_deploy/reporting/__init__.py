"""What reports are made of.

In reading order:

- ``files``: writes a file whole, or not at all
- ``visible``: text from outside, so that it shows and does nothing
- ``svg``: small plots
- ``html``: the frame of a page that holds them
- ``notebook``: the table and the picture that a notebook shows of an object
"""
