"""Pure tensor functions on tokens that lie on a grid: the arithmetic of token compression.

Nothing here knows of models, methods or timesteps, and nothing but ``torch`` is imported. Tokens are ``(B, N, C)`` with
N = height * width in row-major order. An :class:`~bigain.operators.assignment.Assignment` is one group index per token:
merging is a scatter over it and un-merging a gather, and the merging methods differ only in how they make it.

A tensor whose shape does not fit the grid or the assignment, and a value outside of what is allowed, raise a
ValueError that names it.
"""
