"""Write a report: a comparison, its curves and every run, in a single HTML file.

    runs on disk -> content.py -> plain data -> page.py -> one file, which page.js displays

`results/recipe.py` computes how a run differs from its recipe, and the command that reproduces it.
"""
