"""Is it an edge or luck? What a run is worth after all that was tried, each question a module.

Everything here runs the engine again as often as it likes and counts none of it as a trial.
"""
