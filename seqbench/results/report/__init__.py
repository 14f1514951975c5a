"""One page to send to somebody: a comparison, its curves and every run, in a single HTML file.

    runs on disk -> content.py -> plain data -> page.py -> one file, which page.js shows

`recipe.py` says how a run differs from its recipe, and which command repeats it.
"""
