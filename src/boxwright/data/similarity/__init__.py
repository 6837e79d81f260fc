"""Near-duplicate images: copies that were encoded again, resized, made lighter or cut, frames of a video."""
