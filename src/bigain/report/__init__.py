"""What is made of results: tables and pictures. Runs no model."""
