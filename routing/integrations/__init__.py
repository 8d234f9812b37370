"""Routers inside other libraries. Nothing here imports those libraries: they call objects of this package."""
