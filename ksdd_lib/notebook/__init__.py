"""What only a notebook needs: Colab, widgets, progress, and views to explore results."""
