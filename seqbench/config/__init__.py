"""Configs: what the user types, composed by Hydra and checked before anything is built.

`overrides` turns words of the command line into Hydra's grammar, `choices` finds what can be
chosen, `compose` makes a plain dict of both and builds from it, `schema` checks the dict against
the signatures of what it builds, and `trust` restricts what a config from a run folder may build.
"""
