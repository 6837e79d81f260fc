"""Parts between the pyramid and the detections: losses, the region proposal network, the box head, post-processing."""
