"""The joint run: classification, generation, cost and speed of every method, in one file that resumes."""
