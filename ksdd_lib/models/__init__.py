"""The networks as layers alone: no device, no path, no optimiser, no threshold."""
