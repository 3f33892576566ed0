"""What is measured: accuracy, distributions of images, fidelity, spectra."""
