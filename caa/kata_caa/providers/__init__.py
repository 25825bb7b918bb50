"""Clouds, one module or package each; `kata_caa.providers.api` is what they implement."""
