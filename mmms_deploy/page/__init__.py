"""What the page to click on needs (mmms-demo); ``files/`` is the page itself."""
