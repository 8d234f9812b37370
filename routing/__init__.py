"""Route each prompt to the model that answers well enough for the least money.

A router is a Bradley-Terry model whose ratings depend on the prompt. Import what is needed from the module
that holds it (`from routing.ratings.bradley_terry import fit_bradley_terry`); importing the package does nothing else.
"""

__version__ = "0.1.0"
