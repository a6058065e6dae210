"""Replaying a bundle's golden clicks, and measuring how far masks differ."""
