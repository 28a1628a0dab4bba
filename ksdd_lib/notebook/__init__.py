"""What only a notebook needs: Colab, controls, progress, and views of results."""
