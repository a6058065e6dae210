"""What the page to click on needs (mmms-demo); ``files/`` is the page itself.

- ``network``: what the page has to know of a network, whoever answers
- ``model``: whether a bundle's click stage runs in a browser, and what JavaScript has to know of it
- ``features``: an image's features in half precision; ``framing``: the frames that they and live answers come in
- ``runtime``: onnxruntime-web, fetched once from npm
- ``layers``: pictures and modalities as files that a browser shows
- ``static``: all of it as a folder that runs from any web server
"""
