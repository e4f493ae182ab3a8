"""The passes: bounded functions that are given a store and the time, and return what they did, row by row."""
