"""What an evaluation gives to read: tables, text, plots, pictures of cases, one HTML page."""
