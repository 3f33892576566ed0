"""The page that `bigain ui` serves: compress, classify and choose, in a browser on this machine."""
