"""What an evaluation gives to read.

In reading order:

- ``text``: the numbers as text, the same on the console and in the page
- ``console_table``: the measures as a table on the console
- ``csv_parquet``: a row for each object, as CSV and as Parquet
- ``page``: one HTML page
- ``plots``: its plots, as SVG
- ``cases``: its pictures of the worst cases
"""
