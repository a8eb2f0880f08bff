"""Science of the pixels: footprints, clear sky, NDVI and statistics by farm."""
