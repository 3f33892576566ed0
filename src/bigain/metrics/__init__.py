"""What is measured: accuracy, distributions of images, fidelity.

Arguments that do not fit (lengths that differ, shapes, values out of range) raise a ValueError that names them.
"""
