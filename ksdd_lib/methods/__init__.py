"""What can be trained on a fold and judge an image: one protocol, and a file for each method."""
