"""Tables of models by task, from cells of runs to a terminal, Markdown, HTML, LaTeX, CSV or JSON.

cells -> layout.py -> comparison.py, reproduction.py -> Table -> markup.py, or the terminal
      -> export.py: CSV and JSON
"""
