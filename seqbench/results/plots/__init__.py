"""Figures of many runs for a paper or a talk.

cells -> data.py: lines and points -> figures.py, with axes.py -> a .png, .svg or .pdf file
"""
