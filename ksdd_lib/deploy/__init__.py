"""A trained model in use: one image or a folder judged, weights as one file to give away."""
