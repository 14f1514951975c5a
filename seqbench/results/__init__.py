"""Read records of runs; select, pool, compare and show them.

runs on disk -> collect.py -> where.py -> cells.py -> tables/, plots/, report/
                                       -> sql.py, summary.py: single runs
"""
