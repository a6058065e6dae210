"""The HTTP API: sessions for annotators elsewhere, behind the page or a program of your own."""
