"""Label Studio: a backend that speaks its HTTP contract for models, and answers clicks with masks.

Label Studio posts an annotator's points to ``/predict``, and shows the region that comes back. In reading order:

- ``settings``: the Label Studio that is served, and what may be fetched from where
- ``markup``: what a labelling configuration offers: pictures, points and boxes to give, masks to answer with
- ``prompts``: points and boxes in per cent, as clicks in pixels
- ``regions``: masks as Label Studio's regions, of a brush or a bitmask
- ``brush``: run lengths of a brush, as Label Studio keeps them; ``brush_decoding`` draws them
- ``tokens``: the access token, as it is sent
- ``fetching``: a task's picture, from the hosts that were named and no other
- ``tasks``: a session for each task that is worked on
- ``shapes``: what Label Studio sends
- ``app``: the application; ``guard`` before it, ``serving`` below it
- ``conformance``: how the door is compared with a session
"""

NAME = "label-studio"
"""The door on the command line."""
