"""Whether the same clicks give the same masks at every door: a bundle's golden clicks through each of them."""
