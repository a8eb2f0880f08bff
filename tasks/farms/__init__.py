"""Farms as files have them: read, checked, repaired where that is safe, and written back."""
