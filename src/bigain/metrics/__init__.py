"""What is measured: accuracy, distributions of images, fidelity.

Arguments that do not fit (lengths that differ, shapes, values outside of what is allowed) raise a ValueError that names
them.
"""
