"""Images and modalities are prepared on the GPU: resized and normalised, from pixels as they are to a stage's input.

- ``plan``: how one is prepared: tables of weights, and the bands of rows that go up one after the other.
- ``preparation``: does so for one session, in a few MiB of its own, whatever the picture's size.
"""
