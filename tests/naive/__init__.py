"""A second, deliberately naive implementation of the measures, kept as an oracle for tests.

Nothing here imports the package under test and nothing here is fast: plain loops over rows, exact sums,
definitions written out as they are read. Where both implementations agree, a mistake would have
to be made twice.
"""
