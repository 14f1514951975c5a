"""Configs: what the user types, composed by Hydra and checked before anything is built.

    overrides -> compose -> finish -> check        a config: a plain, checked dict
    config -> build                                 an object of it
    config.yaml of a run folder -> trust            a config that builds trusted code only

`choices` and `yaml_file` find and read the files, `precedence` merges them, `schema` compares a
node with the signature of what it builds.
"""

from typing import Any

# A resolved config: plain dicts, lists and values that JSON can hold.
Config = dict[str, Any]
